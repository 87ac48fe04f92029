//! What surrounds one call: its message, its service, and the server it runs in.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::task::Poll;
use std::time::Instant;

use crosstie_model::outgoing::FoundOutgoing;
use crosstie_model::ports::{DataStore, LoadedService, ServiceDirectory};
use crosstie_model::transform::FoundStylesheet;
use crosstie_model::{Failure, Message, Reply, ReplyBody, ServiceName};
use pyo3::prelude::*;
use serde_json::Value;

use super::event_loop::EventLoop;
use super::pool::{Pool, Submitted};
use super::resources::Resources;
use super::service::ServiceCode;

/// What a runtime has to offer its services.
pub(crate) struct Host {
    pub(crate) pool: Pool,
    pub(crate) events: EventLoop,
    pub(crate) data: Arc<dyn DataStore>,
    pub(crate) io: tokio::runtime::Handle,
    /// Where connections to other systems live.
    pub(crate) network: tokio::runtime::Handle,
    directory: RwLock<Option<Arc<dyn ServiceDirectory>>>,
    config: Mutex<Config>,
}

/// The user configuration, and what services see of it once one looked.
struct Config {
    value: Value,
    shown: Option<Py<PyAny>>,
}

impl Host {
    pub(crate) fn new(
        pool: Pool,
        events: EventLoop,
        data: Arc<dyn DataStore>,
        io: tokio::runtime::Handle,
        network: tokio::runtime::Handle,
        config: Value,
    ) -> Self {
        let config = Mutex::new(Config { value: config, shown: None });
        Self { pool, events, data, io, network, directory: RwLock::default(), config }
    }

    /// Lets the reactor finish its round, in which more may be submitted, before a thread is woken.
    pub(crate) async fn flush_later(&self, submitted: Submitted) {
        /// Flushes even if the caller goes away meanwhile.
        struct Flush<'a>(&'a Pool);
        impl Drop for Flush<'_> {
            fn drop(&mut self) {
                self.0.flush();
            }
        }
        if submitted == Submitted::FlushDue {
            let _flush = Flush(&self.pool);
            let mut is_first = true;
            std::future::poll_fn(|context| {
                if std::mem::take(&mut is_first) {
                    // Straight to the end of the reactor's queue.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
        }
    }

    pub(crate) fn set_directory(&self, directory: Arc<dyn ServiceDirectory>) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Some(directory);
    }

    pub(crate) fn set_config(&self, value: Value) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Config { value, shown: None };
    }

    /// What services see of the configuration; `make` is asked once per configuration.
    pub(crate) fn shown_config<'py>(
        &self,
        py: Python<'py>,
        make: impl FnOnce(&Value) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let value = {
            let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(shown) = &config.shown {
                return Ok(shown.bind(py).clone());
            }
            config.value.clone()
        };
        // Made without the lock: making it runs Python, which may let another thread in here.
        let made = make(&value)?;
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if config.value == value {
            config.shown = Some(made.clone().unbind());
        }
        Ok(made)
    }

    pub(crate) fn find(&self, service: &str) -> Option<Arc<dyn LoadedService>> {
        self.directory()?.find(service)
    }

    pub(crate) fn dictionary(&self, name: &str) -> Option<Arc<Value>> {
        self.directory()?.dictionary(name)
    }

    pub(crate) fn outgoing(&self, name: &str) -> Option<FoundOutgoing> {
        self.directory()?.outgoing(name)
    }

    pub(crate) fn stylesheet(&self, name: &str) -> Option<FoundStylesheet> {
        self.directory()?.stylesheet(name)
    }

    fn directory(&self) -> Option<Arc<dyn ServiceDirectory>> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The data of a declared input, before it is converted.
#[derive(Debug)]
pub(crate) enum InputData {
    /// The service declares none.
    Undeclared,
    /// The payload as it came already is the input.
    Payload,
    /// The payload with what path and query added.
    Merged(Value),
}

/// One call under way. Shared by the objects a service sees; those may outlive the call in a thread the
/// service started, so this holds the service's code but does not keep its unit loaded.
pub(crate) struct Call {
    pub(crate) host: Arc<Host>,
    pub(crate) service: Arc<ServiceCode>,
    pub(crate) message: Message,
    pub(crate) input: InputData,
    /// What it holds outside of it.
    pub(crate) resources: Arc<Resources>,
    cid: OnceLock<String>,
}

impl Call {
    pub(crate) fn new(
        host: Arc<Host>,
        service: Arc<ServiceCode>,
        message: Message,
        input: InputData,
        resources: Arc<Resources>,
    ) -> Arc<Self> {
        Arc::new(Self { host, service, message, input, resources, cid: OnceLock::new() })
    }

    /// The correlation id as text.
    pub(crate) fn cid(&self) -> &str {
        self.cid.get_or_init(|| self.message.trace.cid.to_string())
    }

    /// Its handler ended: what it holds is let go of, unless the rest of a streamed reply needs it.
    pub(crate) fn ended(&self, reply: &Result<Reply, Failure>) {
        if !matches!(reply, Ok(Reply { body: ReplyBody::Stream(_), .. })) {
            self.resources.close();
        }
    }

    /// The service's name.
    pub(crate) fn name(&self) -> &ServiceName {
        &self.service.description.name
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call of {} ({})", self.name(), self.message.trace.cid)
    }
}

thread_local! {
    static CURRENT: RefCell<Vec<Arc<Call>>> = const { RefCell::new(Vec::new()) };
}

/// The call the calling thread works on: what a new service instance belongs to, and whose cid a log record
/// gets.
pub(crate) fn current() -> Option<Arc<Call>> {
    CURRENT.with_borrow(|calls| calls.last().cloned())
}

/// Runs `work` as part of `call`.
pub(crate) fn within<T>(call: &Arc<Call>, work: impl FnOnce() -> T) -> T {
    struct Left;
    impl Drop for Left {
        fn drop(&mut self) {
            CURRENT.with_borrow_mut(Vec::pop);
        }
    }
    CURRENT.with_borrow_mut(|calls| calls.push(Arc::clone(call)));
    let _left = Left;
    work()
}

/// Runs user code of `call` on this thread: within the call, under its service's blame, interrupted after
/// `deadline`.
pub(crate) fn run_user_code<T>(
    py: Python<'_>,
    call: &Arc<Call>,
    deadline: Instant,
    work: impl FnOnce() -> T,
) -> T {
    within(call, || {
        let _entered = super::pool::Entered::new(py, call.name(), deadline);
        work()
    })
}
