//! Tests of the scratch runner with shells as its processes.

use super::*;

fn shell(script: &str) -> ScratchCommand {
    ScratchCommand::new("/bin/sh", vec!["-c".into(), script.into()])
}

fn run_now(command: ScratchCommand) -> Result<ScratchOutput, ScratchError> {
    run_with(command, Vec::new())
}

fn run_with(command: ScratchCommand, stdin: Vec<u8>) -> Result<ScratchOutput, ScratchError> {
    block_on(run(command, stdin))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn input_goes_in_and_output_comes_out() {
    let command = shell("cat; echo trouble >&2; exit 3");
    let output = run_with(command, vec![b'x'; 1_000_000]).unwrap();
    assert_eq!(output.end, ScratchEnd::Exited(3));
    assert_eq!(output.stdout.len(), 1_000_000);
    assert_eq!(output.stderr, b"trouble\n");
}

#[test]
fn a_process_that_ignores_its_input_is_no_error() {
    let output = run_with(shell("exit 0"), vec![b'x'; 1_000_000]).unwrap();
    assert_eq!(output.end, ScratchEnd::Exited(0));
}

#[test]
fn a_process_that_hangs_is_killed_with_everything_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = shell("sleep 1000 & echo $! > child; echo before >&2; wait");
    command.directory = Some(directory.path().to_owned());
    command.timeout = Duration::from_millis(500);
    let error = run_now(command).unwrap_err();
    assert!(matches!(&error, ScratchError::TimedOut { stderr, .. } if stderr == b"before\n"), "{error:?}");
    let text = std::fs::read_to_string(directory.path().join("child")).unwrap();
    let grandchild: u32 = text.trim().parse().unwrap();
    assert!(pidfile::wait_gone(grandchild, Duration::from_secs(20)).unwrap());
}

#[test]
fn what_a_process_leaves_running_behind_it_is_killed() {
    let output = run_now(shell("sleep 1000 & echo $!")).unwrap();
    let grandchild: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(pidfile::wait_gone(grandchild, Duration::from_secs(20)).unwrap());
}

#[test]
fn output_beyond_the_limit_is_refused_and_errors_are_cut() {
    let mut command = shell("head -c 100000 /dev/zero");
    command.output_limit = 99_999;
    assert!(matches!(run_now(command), Err(ScratchError::OutputTooLarge { limit: 99_999 })));
    let mut command = shell("head -c 100000 /dev/zero");
    command.output_limit = 100_000;
    assert_eq!(run_now(command).unwrap().stdout.len(), 100_000);
    let mut command = shell("head -c 1000000 /dev/zero >&2");
    command.output_limit = 10;
    assert_eq!(run_now(command).unwrap().stderr.len(), 10);
}

#[test]
fn memory_and_processor_time_are_limited() {
    let mut command = shell("x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${#x}");
    command.memory_limit = Some(100_000_000);
    let output = run_now(command).unwrap();
    assert!(output.end != ScratchEnd::Exited(0) || output.stdout != b"300000000\n");
    let mut command = shell("while :; do :; done");
    command.cpu_limit = Some(Duration::from_millis(900));
    assert_eq!(run_now(command).unwrap().end, ScratchEnd::Signalled(libc::SIGXCPU));
}

#[test]
fn a_caller_that_loses_interest_kills_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = shell("echo $$ > pid; exec sleep 1000");
    command.directory = Some(directory.path().to_owned());
    let file = directory.path().join("pid");
    let read = || std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut running = Box::pin(run(command, Vec::new()));
        let started = Instant::now();
        while read().is_none() {
            assert!(started.elapsed() < Duration::from_secs(20));
            let _ = tokio::time::timeout(Duration::from_millis(5), &mut running).await;
        }
    });
    let pid = read().unwrap();
    wait_until("the end of the process", || pidfile::wait_gone(pid, Duration::from_millis(50)).unwrap());
}

#[test]
fn a_program_that_is_not_there_cannot_be_started() {
    let missing = ScratchCommand::new("/nonexistent/program", Vec::new());
    assert!(matches!(run_now(missing), Err(ScratchError::Start(_))));
}

#[test]
fn nothing_but_the_three_pipes_is_inherited() {
    let inheritable = nix::unistd::dup(std::io::stderr()).unwrap();
    let output = run_now(shell("ls /proc/self/fd")).unwrap();
    // 3 is the directory that `ls` itself reads.
    assert_eq!(output.stdout, b"0\n1\n2\n3\n");
    drop(inheritable);
}

#[test]
fn a_process_started_ahead_waits_for_its_input_and_then_has_its_whole_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = shell("touch started; read line; echo got $line");
    command.directory = Some(directory.path().to_owned());
    command.timeout = Duration::from_secs(20);
    let mut prepared = Prepared::ahead(command.clone(), Duration::from_secs(200)).unwrap();
    wait_until("the start", || directory.path().join("started").exists());
    assert!(prepared.is_waiting());
    let output = block_on(prepared.run(b"this\n".to_vec())).unwrap();
    assert_eq!((output.end, output.stdout), (ScratchEnd::Exited(0), b"got this\n".to_vec()));

    command.timeout = Duration::from_millis(100);
    command.arguments = vec!["-c".into(), "cat; exec sleep 1000".into()];
    let prepared = Prepared::ahead(command, Duration::from_secs(200)).unwrap();
    let error = block_on(prepared.run(Vec::new())).unwrap_err();
    assert!(matches!(error, ScratchError::TimedOut { .. }), "{error:?}");
}

#[test]
fn a_process_started_ahead_is_gone_when_it_is_dropped_or_waited_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let read = || std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let mut command = shell("echo $$ > pid.new; mv pid.new pid; exec cat");
    command.directory = Some(directory.path().to_owned());
    let prepared = Prepared::ahead(command.clone(), Duration::from_secs(200)).unwrap();
    wait_until("the start", || read().is_some());
    drop(prepared);
    let dropped = read().unwrap();
    wait_until("its end", || pidfile::wait_gone(dropped, Duration::from_millis(50)).unwrap());

    let mut prepared = Prepared::ahead(command, Duration::from_millis(100)).unwrap();
    wait_until("the end of its patience", || !prepared.is_waiting());
    for program in ["/nonexistent/program", "/bin/true"] {
        let command = ScratchCommand::new(program, Vec::new());
        let mut prepared = Prepared::ahead(command, Duration::from_secs(200)).unwrap();
        wait_until("its end", || !prepared.is_waiting());
    }
}
