//! CPython itself: configured, started once per process, never stopped.
//!
//! The configuration is isolated: no environment variables, no user site, no signal handlers (the worker's
//! own stay in force), no command line. `sys.executable` is the virtual environment's interpreter, so its
//! packages are found as that interpreter finds them and `multiprocessing` starts the right program. Debian's
//! own packages are not importable: what a service may import is the standard library and the environment.

#![expect(unsafe_code, reason = "CPython's initialization interface is C")]

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use include_dir::{Dir, include_dir};
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyModule};

use super::housekeeping;
use super::interface::{Headers, Table};
use super::native::crosstie_native;
use super::options::StartError;

/// The interpreter services run with when the server has no virtual environment.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../sdk/python/crosstie");
static BOOTSTRAP: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/python/bootstrap");

/// What process the interpreter lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// A worker: what user code prints is logged.
    Worker,
    /// A scratch process that checks one artifact: what user code prints goes where it would.
    Check,
}

/// Set in a forked child of this process, which has the threads of none of our parts.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Whether this process is a fork of the one the interpreter was started in. Such a child may run its
/// service's code, and nothing of ours.
pub(crate) fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Starts the interpreter; a second call finds it running, with the environment of the first.
///
/// # Errors
/// CPython or the runtime's Python code would not start.
pub(crate) fn start(venv: &Path, setting: Setting) -> Result<(), StartError> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if *started {
        return Ok(());
    }
    let (chores, receiver) = mpsc::channel();
    housekeeping::open(chores);
    let (ready, result) = mpsc::channel();
    let venv = venv.to_owned();
    // The thread that initializes CPython is Python's main thread and must outlive everything.
    thread::Builder::new().name("python-main".into()).stack_size(8 << 20).spawn(move || {
        let outcome = initialize(&venv).and_then(|()| bootstrap(setting));
        let failed = outcome.is_err();
        let _ = ready.send(outcome);
        if !failed {
            housekeeping::run(&receiver);
        }
    })?;
    result.recv().unwrap_or_else(|_| Err(StartError::Interpreter("its thread died".into())))?;
    *started = true;
    Ok(())
}

fn initialize(venv: &Path) -> Result<(), StartError> {
    let own = venv.join("bin/python3");
    let program = if own.exists() { own } else { SYSTEM_PYTHON.into() };
    let program = CString::new(program.as_os_str().as_bytes())
        .map_err(|_| StartError::Interpreter("the path of the virtual environment holds a NUL".into()))?;
    pyo3::append_to_inittab!(crosstie_native);
    // SAFETY: nothing has initialized CPython in this process (`start` holds its lock and asks once), and
    // the configurations are fully initialized by their own constructors before any field is read.
    unsafe {
        let mut preconfig = std::mem::zeroed::<ffi::PyPreConfig>();
        ffi::PyPreConfig_InitIsolatedConfig(&raw mut preconfig);
        preconfig.utf8_mode = 1;
        check(ffi::Py_PreInitialize(&raw const preconfig))?;

        let mut config = std::mem::zeroed::<ffi::PyConfig>();
        ffi::PyConfig_InitIsolatedConfig(&raw mut config);
        config.install_signal_handlers = 0;
        config.parse_argv = 0;
        config.write_bytecode = 0;
        config.pathconfig_warnings = 0;
        config.site_import = 1;
        let outcome = configure(&mut config, &program);
        ffi::PyConfig_Clear(&raw mut config);
        outcome?;
        // Gives the interpreter free; from here on threads attach as they need it.
        ffi::PyEval_SaveThread();
        libc::pthread_atfork(None, None, Some(mark_forked));
    }
    Ok(())
}

/// # Safety
/// `config` is initialized and CPython is not.
unsafe fn configure(config: &mut ffi::PyConfig, program: &CStr) -> Result<(), StartError> {
    // SAFETY: the pointers are to fields of one valid configuration and to a NUL-terminated string.
    unsafe {
        let name = &raw mut config.program_name;
        check(ffi::PyConfig_SetBytesString(config, name, program.as_ptr()))?;
        let executable = &raw mut config.executable;
        check(ffi::PyConfig_SetBytesString(config, executable, program.as_ptr()))?;
        check(ffi::Py_InitializeFromConfig(config))
    }
}

extern "C" fn mark_forked() {
    FORKED.store(true, Ordering::Relaxed);
}

fn check(status: ffi::PyStatus) -> Result<(), StartError> {
    // SAFETY: the status comes from CPython; its message, if any, is a static string.
    let (failed, message) = unsafe {
        let message = if status.err_msg.is_null() {
            "no reason given".to_owned()
        } else {
            CStr::from_ptr(status.err_msg).to_string_lossy().into_owned()
        };
        (ffi::PyStatus_Exception(status) != 0, message)
    };
    if failed { Err(StartError::Interpreter(message)) } else { Ok(()) }
}

fn bootstrap(setting: Setting) -> Result<(), StartError> {
    Python::attach(|py| {
        prepare(py, setting).map_err(|error| {
            let traceback = error.traceback(py).and_then(|traceback| traceback.format().ok());
            StartError::Bootstrap(format!("{error}\n{}", traceback.unwrap_or_default()))
        })
    })
}

fn prepare(py: Python<'_>, setting: Setting) -> PyResult<()> {
    // The thread that imports `threading` first is the main thread for it.
    py.import("threading")?;
    forget_system_packages(py)?;
    let packages = PyDict::new(py);
    packages.set_item("crosstie", sources(py, &SDK)?)?;
    packages.set_item("_crosstie_runtime", sources(py, &BOOTSTRAP)?)?;
    let memory = BOOTSTRAP
        .get_file("memory.py")
        .and_then(|file| CString::new(file.contents()).ok())
        .ok_or_else(|| PyRuntimeError::new_err("the module loader is missing"))?;
    let seed = PyModule::from_code(py, &memory, c"<_crosstie_runtime>/memory.py", c"_crosstie_seed")?;
    seed.call_method1("install", (packages,))?;
    py.import("sys")?.getattr("modules")?.del_item("_crosstie_seed")?;
    py.import("_crosstie_runtime.units")?.call_method0("install")?;
    if setting == Setting::Worker {
        let level = if tracing::enabled!(target: "service", tracing::Level::DEBUG) { 10 } else { 20 };
        py.import("_crosstie_runtime.process")?.call_method1("install", (level,))?;
    }
    py.import("sys")?.call_method1("setswitchinterval", (0.001,))?;
    for module in ["crosstie", "_crosstie_runtime.describe", "_crosstie_runtime.calls"] {
        py.import(module)?;
    }
    let mapping = py.import("collections.abc")?.getattr("Mapping")?;
    mapping.call_method1("register", (py.get_type::<Table>(),))?;
    mapping.call_method1("register", (py.get_type::<Headers>(),))?;
    // What is there now stays for ever; collections need not look at it again.
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    Ok(())
}

/// Debian puts its own packages on the path of every interpreter that no virtual environment shields.
fn forget_system_packages(py: Python<'_>) -> PyResult<()> {
    let sys = py.import("sys")?;
    let path: Vec<String> = sys.getattr("path")?.extract()?;
    let kept: Vec<_> = path.into_iter().filter(|entry| !entry.ends_with("/dist-packages")).collect();
    sys.setattr("path", kept)
}

fn sources<'py>(py: Python<'py>, directory: &Dir<'_>) -> PyResult<Bound<'py, PyDict>> {
    let files = PyDict::new(py);
    for file in directory.files() {
        let name = file.path().to_string_lossy();
        if name.ends_with(".py") {
            files.set_item(name.as_ref(), PyBytes::new(py, file.contents()))?;
        }
    }
    Ok(files)
}
