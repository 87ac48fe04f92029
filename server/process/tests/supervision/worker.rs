//! The worker's role: answers questions on the shared socket and misbehaves when asked to.
//!
//! Files in the server's directory change how it lives: `die-at-start`, `die-when-ready`, `never-ready`,
//! `never-drain`.

use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crosstie_model::event::Event;
use crosstie_model::names::{ServiceName, UnitName};
use crosstie_model::ports::{Blame as _, CounterCells as _, RateCells as _};
use crosstie_process::control::{ControlWriter, ToSupervisor, ToWorker};
use crosstie_process::lock::RecordLock;
use crosstie_process::shm::Segment;
use crosstie_process::{fault, fork_safety, worker};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

struct Worker {
    segment: Arc<Segment>,
    index: u16,
    writer: ControlWriter,
    /// A second descriptor of the control socket, to say what the protocol does not know.
    raw_control: std::fs::File,
    singleton: AtomicBool,
    draining: AtomicBool,
    events: std::sync::Mutex<Vec<String>>,
    mark: String,
}

pub(crate) fn run() -> ExitCode {
    let legacy: serde_json::Value = serde_json::from_str(&std::env::var("CROSSTIE_WORKER").unwrap()).unwrap();
    let inherited = worker::inherit().unwrap();
    let mut arguments = std::env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap());
    let mark = arguments.next().unwrap().into_string().unwrap();
    note_start(&directory);
    if directory.join("die-at-start").exists() {
        return ExitCode::from(3);
    }
    fault::install(&inherited.segment).unwrap();
    let raw_control = control_copy(&legacy);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        let (mut reader, writer) = inherited.control.split().unwrap();
        fork_safety::install(&inherited.segment).unwrap();
        assert!(matches!(reader.next().await.unwrap(), Some(ToWorker::Start { .. })));
        let worker = Arc::new(Worker {
            segment: inherited.segment,
            index: inherited.index,
            writer,
            raw_control,
            singleton: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            events: std::sync::Mutex::default(),
            mark,
        });
        let (_, listener) = inherited.listeners.into_iter().next().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        while directory.join("never-ready").exists() {
            // Its supervisor may give up on it.
            if let Ok(Ok(None | Some(ToWorker::Drain { .. }))) =
                tokio::time::timeout(Duration::from_millis(5), reader.next()).await
            {
                return ExitCode::SUCCESS;
            }
        }
        worker.writer.send(&ToSupervisor::Ready).await.unwrap();
        if directory.join("die-when-ready").exists() {
            return ExitCode::from(4);
        }
        let accepting = tokio::spawn(accept(Arc::clone(&worker), listener));
        tokio::spawn(Arc::clone(&worker).seek_singleton(directory.join("work/singleton.lock")));
        loop {
            match reader.next().await.unwrap() {
                Some(ToWorker::Event(event)) => worker.events.lock().unwrap().push(format!("{event:?}")),
                Some(ToWorker::Drain { .. }) if directory.join("never-drain").exists() => {}
                Some(ToWorker::Drain { .. }) | None => break,
                Some(ToWorker::Start { .. }) => panic!("started twice"),
            }
        }
        accepting.abort();
        worker.draining.store(true, Ordering::Relaxed);
        while worker.segment.own_worker().unwrap().connections.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = worker.writer.send(&ToSupervisor::Drained).await;
        ExitCode::SUCCESS
    })
}

/// Appends the time of this start, in milliseconds of the monotonic clock, to `starts`.
fn note_start(directory: &std::path::Path) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(directory.join("starts")).unwrap();
    file.write_all(format!("{}\n", uptime.split_whitespace().next().unwrap()).as_bytes()).unwrap();
}

#[expect(unsafe_code, reason = "the test needs a second handle of a socket it only knows by number")]
fn control_copy(legacy: &serde_json::Value) -> std::fs::File {
    let fd = i32::try_from(legacy["control"].as_i64().unwrap()).unwrap();
    // SAFETY: the descriptor is open: `Inherited` holds it.
    let control = unsafe { BorrowedFd::borrow_raw(fd) };
    control.try_clone_to_owned().unwrap().into()
}

async fn accept(worker: Arc<Worker>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        worker.segment.own_worker().unwrap().connection_opened();
        tokio::spawn(serve(Arc::clone(&worker), stream));
    }
}

async fn serve(worker: Arc<Worker>, stream: TcpStream) {
    let slot = worker.segment.own_worker().unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut kept = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let words: Vec<&str> = line.split(' ').collect();
        slot.request_started();
        let answer = match words[..] {
            // In flight until the next line comes.
            ["hold"] => {
                let _ = writer.write_all(b"holding\n").await;
                let _ = lines.next_line().await;
                "held".to_owned()
            }
            ["gauge", key, limit] => {
                let permit = worker.segment.gauge(worker.index, key).try_acquire(limit.parse().unwrap());
                let granted = permit.is_some();
                kept.extend(permit);
                granted.to_string()
            }
            ["replace"] => {
                worker.writer.send(&ToSupervisor::Replace { reason: "test".into() }).await.unwrap();
                "asked".into()
            }
            ["event"] => {
                worker.writer.send(&ToSupervisor::Event(Event::CertificatesChanged)).await.unwrap();
                "sent".into()
            }
            ["release", name] => {
                let service = ServiceName::new(name).unwrap();
                let event = Event::QuarantineReleased { service };
                worker.writer.send(&ToSupervisor::Event(event)).await.unwrap();
                "sent".into()
            }
            _ => worker.answer(&words),
        };
        slot.request_finished();
        let written = writer.write_all(format!("{answer}\n").as_bytes()).await;
        // A draining worker closes a connection only after an answer.
        if written.is_err() || worker.draining.load(Ordering::Relaxed) {
            break;
        }
    }
    slot.connection_closed();
}

impl Worker {
    async fn seek_singleton(self: Arc<Self>, path: PathBuf) {
        loop {
            if let Some(lock) = RecordLock::try_acquire(&path).unwrap() {
                assert!(lock.held());
                self.singleton.store(true, Ordering::Relaxed);
                self.writer.send(&ToSupervisor::Singleton(true)).await.unwrap();
                return std::mem::forget(lock);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn answer(&self, words: &[&str]) -> String {
        match *words {
            ["pid"] => std::process::id().to_string(),
            ["mark"] => self.mark.clone(),
            ["singleton"] => self.singleton.load(Ordering::Relaxed).to_string(),
            ["workers"] => serde_json::to_string(&self.segment.workers()).unwrap(),
            ["totals"] => format!("{} {}", self.segment.total_connections(), self.segment.total_in_flight()),
            ["events"] => self.events.lock().unwrap().join(","),
            ["count", key] => {
                (self.segment.cell(key).unwrap().fetch_add(1, Ordering::Relaxed) + 1).to_string()
            }
            ["rate", key, limit] => {
                let hour = Duration::from_secs(3600);
                self.segment.take(key.parse().unwrap(), limit.parse().unwrap(), hour).allowed.to_string()
            }
            ["in-use", key] => self.segment.gauge(self.index, key).in_use().to_string(),
            ["quarantined", name] => {
                self.segment.is_quarantined(&ServiceName::new(name).unwrap()).to_string()
            }
            ["unit-quarantined", name] => {
                self.segment.is_unit_quarantined(&UnitName::new(name).unwrap()).to_string()
            }
            ["strikes"] => serde_json::to_string(&self.segment.strikes()).unwrap(),
            ["lose", name] => {
                self.segment.thread_lost(&ServiceName::new(name).unwrap());
                "lost".into()
            }
            ["garbage"] => {
                (&self.raw_control).write_all(&[0xff; 64]).unwrap();
                "written".into()
            }
            ["child"] => Command::new("sleep").arg("1000").spawn().unwrap().id().to_string(),
            ["detached-child"] => {
                let mut command = Command::new("setsid");
                command.args(["--fork", "sh", "-c", "echo $$; exec sleep 1000 >&- 2>&-"]);
                String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
            }
            ["fork"] => self.fork(),
            [deed, name] => self.misbehave(deed, name),
            _ => format!("unknown: {words:?}"),
        }
    }

    /// Runs `name` on a thread of its own, as a handler thread would, and does the deed there.
    fn misbehave(&self, deed: &str, name: &str) -> String {
        let (segment, deed, name) = (Arc::clone(&self.segment), deed.to_owned(), name.to_owned());
        let (sender, entered) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let slot = segment.register_thread();
            match deed.as_str() {
                "load" | "exit-loading" => slot.enter_load(&UnitName::new(&name).unwrap()),
                _ => slot.enter(&ServiceName::new(&name).unwrap()),
            };
            sender.send(()).unwrap();
            match deed.as_str() {
                "abort" => std::process::abort(),
                "fault" => fault_now(),
                "overflow" => drop(overflow(1)),
                "exit-loading" => std::process::exit(1),
                "run" | "load" => std::thread::sleep(Duration::from_secs(3600)),
                other => panic!("unknown deed {other}"),
            }
        });
        entered.recv().unwrap();
        std::process::id().to_string()
    }

    /// Forks as a service might; the child looks at what it was left with.
    #[expect(unsafe_code, reason = "the point is a bare fork")]
    fn fork(&self) -> String {
        let (mut theirs, mine) = std::io::pipe().unwrap();
        self.segment.cell("fork").unwrap().store(7, Ordering::Relaxed);
        let permit = self.segment.gauge(self.index, "fork").try_acquire(5).unwrap();
        // SAFETY: the child makes system calls and formats a line; glibc keeps malloc usable after fork.
        match unsafe { libc::fork() } {
            0 => {
                drop(permit);
                let cell = self.segment.cell("fork").unwrap();
                let seen = cell.fetch_add(100, Ordering::Relaxed);
                let mut open = 0;
                for fd in 3..200 {
                    let pipe = std::os::fd::AsRawFd::as_raw_fd(&mine) == fd
                        || std::os::fd::AsRawFd::as_raw_fd(&theirs) == fd;
                    // SAFETY: asks for flags of a number.
                    open += u32::from(!pipe && unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1);
                }
                let _ = write!(&mine, "{} {seen} {open}", fork_safety::is_forked_child());
                // SAFETY: ends the child without running what belongs to the parent.
                unsafe { libc::_exit(0) }
            }
            child => {
                drop(mine);
                let mut text = String::new();
                std::io::Read::read_to_string(&mut theirs, &mut text).unwrap();
                // SAFETY: waits for the child just made.
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
                let count = self.segment.cell("fork").unwrap().load(Ordering::Relaxed);
                let held = self.segment.gauge(self.index, "fork").in_use();
                let _open = permit;
                format!("{text} {count} {held} {}", fork_safety::is_forked_child())
            }
        }
    }
}

#[expect(unsafe_code, reason = "the point is a fault")]
fn fault_now() {
    let nowhere = std::hint::black_box(std::ptr::without_provenance_mut::<u32>(8));
    // SAFETY: none; the process is meant to die of it.
    unsafe { nowhere.write_volatile(1) };
}

#[expect(unconditional_recursion, reason = "the point is a stack that overflows")]
fn overflow(depth: u64) -> [u64; 64] {
    let mut frame = [std::hint::black_box(depth); 64];
    frame[0] += overflow(depth + 1)[1];
    std::hint::black_box(frame)
}
