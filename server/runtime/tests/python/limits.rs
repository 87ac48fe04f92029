//! Deadlines, queues, lost threads, and what user code may try to break.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crosstie_model::settings::PythonSettings;
use crosstie_model::{Failure, FailureKind, Reply};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{Request, World, get, post};

const SLOW: &str = r#"
import time, threading, asyncio, os
from crosstie import *
interrupted = []
class Spin(Service):
    name = "spin"
    def handle(self):
        try:
            while True:
                pass
        except DeadlineExceeded:
            interrupted.append("spin")
            raise
class Stubborn(Service):
    name = "stubborn"
    def handle(self):
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                while time.monotonic() < end:
                    pass
            except BaseException:
                interrupted.append("stubborn")
class Sleep(Service):
    name = "sleep"
    def handle(self):
        time.sleep(self.request.payload)
        return "slept"
class Fast(Service):
    name = "fast"
    def handle(self):
        return threading.get_ident()
class Log(Service):
    name = "log"
    def handle(self):
        return interrupted
class Wait(Service):
    name = "wait"
    async def handle(self):
        try:
            await asyncio.sleep(self.request.payload)
            return "waited"
        except asyncio.CancelledError:
            interrupted.append("wait")
            raise
class Block(Service):
    name = "block"
    async def handle(self):
        while True:
            pass
class Hang(Service):
    name = "hang"
    async def handle(self):
        time.sleep(self.request.payload)
class Outer(Service):
    name = "outer"
    def handle(self):
        started = time.monotonic()
        try:
            self.invoke("inner")
        except GatewayTimeout as error:
            return [error.status, time.monotonic() - started < 1.5]
class Inner(Service):
    name = "inner"
    deadline_ms = 100
    def handle(self):
        while True:
            pass
class OuterAsync(Service):
    name = "outer.async"
    async def handle(self):
        try:
            await self.invoke("inner")
        except GatewayTimeout as error:
            return error.status
"#;

fn spawn(world: &World, service: &str, request: Request) -> JoinHandle<Result<Reply, Failure>> {
    let service = world.directory.services.lock().unwrap()[service].clone();
    tokio::spawn(async move { service.invoke(request.message).await })
}

fn few(threads: u16, queue: u32) -> PythonSettings {
    PythonSettings {
        handler_threads: threads,
        queue,
        stuck_after_ms: 300,
        max_lost_threads: 2,
        ..PythonSettings::default()
    }
}

async fn logged(world: &World, word: &str) {
    for _ in 0..1000 {
        if world.json("log", get()).await.as_array().unwrap().contains(&json!(word)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{word} was never interrupted");
}

#[tokio::test]
async fn a_handler_past_its_deadline_is_interrupted_and_its_caller_gets_504() {
    let world = World::new();
    world.deploy("slow", SLOW).await;
    let started = Instant::now();
    let failure = world.call("spin", get().within(Duration::from_millis(150))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(140) && waited < Duration::from_secs(2), "{waited:?}");
    logged(&world, "spin").await;
    // The interruption hit that call alone.
    for _ in 0..20 {
        world.json("fast", get()).await;
    }
    world.until("the thread comes back", |world| world.runtime.activity().running == 0).await;
    assert_eq!(world.runtime.activity().lost, 0);
}

#[tokio::test]
async fn a_coroutine_past_its_deadline_is_cancelled() {
    let world = World::new();
    world.deploy("slow", SLOW).await;
    assert_eq!(world.json("wait", post(json!(0.01))).await, json!("waited"));
    let started = Instant::now();
    let failure = world.call("wait", post(json!(30)).within(Duration::from_millis(150))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(2));
    logged(&world, "wait").await;
    // One that does not await is interrupted, and the loop goes on.
    let failure = world.call("block", get().within(Duration::from_millis(150))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert_eq!(world.json("wait", post(json!(0.01))).await, json!("waited"));
    world.until("all calls ended", |world| world.runtime.activity().async_calls == 0).await;
}

#[tokio::test]
async fn a_nested_call_has_its_own_deadline() {
    let world = World::new();
    world.deploy("slow", SLOW).await;
    assert_eq!(world.json("outer", get()).await, json!([504, true]));
    assert_eq!(world.json("outer.async", get()).await, json!(504));
}

#[tokio::test]
async fn a_stuck_thread_is_given_up_and_replaced() {
    let world = World::with(few(1, 10));
    world.deploy("slow", SLOW).await;
    for count in 1..=2 {
        let failure =
            world.call("sleep", post(json!(2)).within(Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Timeout);
        // The only thread is stuck; another takes its place once it counts as lost.
        world.json("fast", get().within(Duration::from_secs(10))).await;
        world.until("the thread is lost", |world| world.blame.lost.lock().unwrap().len() == count).await;
    }
    assert_eq!(*world.blame.lost.lock().unwrap(), ["sleep", "sleep"]);
    world.until("the worker asks to be replaced", |world| world.exhausted.load(Ordering::SeqCst) == 1).await;
    world.until("lost threads come back", |world| world.runtime.activity().lost == 0).await;
    assert_eq!(world.runtime.activity().threads, 1);
}

#[tokio::test]
async fn a_handler_that_swallows_interruptions_is_lost_while_it_runs() {
    let world = World::with(few(2, 10));
    world.deploy("slow", SLOW).await;
    let failure = world.call("stubborn", get().within(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    world.until("the thread is lost", |world| *world.blame.lost.lock().unwrap() == ["stubborn"]).await;
    world.json("fast", get()).await;
    world.until("it comes back", |world| world.runtime.activity().lost == 0).await;
}

#[tokio::test]
async fn a_blocked_event_loop_asks_for_a_new_worker() {
    let world = World::with(few(2, 10));
    world.deploy("slow", SLOW).await;
    let failure = world.call("hang", post(json!(2)).within(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    world.until("the worker asks to be replaced", |world| world.exhausted.load(Ordering::SeqCst) == 1).await;
    assert_eq!(*world.blame.lost.lock().unwrap(), ["hang"]);
    world.json("fast", get()).await;
}

#[tokio::test]
async fn a_full_queue_refuses_with_retry_after() {
    let world = World::with(few(2, 3));
    world.deploy("slow", SLOW).await;
    let calls: Vec<_> = (0..12).map(|_| spawn(&world, "sleep", post(json!(0.3)))).collect();
    let mut outcomes = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => outcomes.0 += 1,
            Err(failure) => {
                assert_eq!((failure.kind, failure.retry_after.is_some()), (FailureKind::Unavailable, true));
                outcomes.1 += 1;
            }
        }
    }
    assert_eq!(outcomes, (5, 7));
}

#[tokio::test]
async fn asynchronous_calls_are_bounded() {
    let world = World::with(PythonSettings { async_calls: 5, ..PythonSettings::default() });
    world.deploy("slow", SLOW).await;
    let calls: Vec<_> = (0..8).map(|_| spawn(&world, "wait", post(json!(0.2)))).collect();
    let mut refused = 0;
    for call in calls {
        if let Err(failure) = call.await.unwrap() {
            assert_eq!((failure.kind, failure.retry_after.is_some()), (FailureKind::Unavailable, true));
            refused += 1;
        }
    }
    assert_eq!(refused, 3);
}

#[tokio::test]
async fn a_call_that_waits_past_its_deadline_is_never_run() {
    let world = World::with(few(1, 10));
    world.deploy("slow", SLOW).await;
    let busy = spawn(&world, "sleep", post(json!(0.5)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let failure = world.call("spin", get().within(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    busy.await.unwrap().unwrap();
    world.json("fast", get()).await;
    assert!(!world.blame.entered.lock().unwrap().contains(&"spin".to_owned()));
}

#[tokio::test]
async fn blocking_handlers_run_side_by_side() {
    let world = World::with(few(16, 100));
    world.deploy("slow", SLOW).await;
    let started = Instant::now();
    let calls: Vec<_> = (0..16).map(|_| spawn(&world, "sleep", post(json!(0.3)))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_handler_that_computes_does_not_hold_up_the_others() {
    let world = World::with(few(8, 100));
    world.deploy("slow", SLOW).await;
    let busy = spawn(&world, "spin", get().within(Duration::from_millis(800)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    world.json("fast", get()).await;
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    busy.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_quiet_worker_uses_one_thread() {
    let world = World::new();
    world.deploy("slow", SLOW).await;
    let mut threads = std::collections::HashSet::new();
    for _ in 0..50 {
        threads.insert(world.json("fast", get()).await.to_string());
    }
    assert_eq!(threads.len(), 1);
    assert_eq!(world.runtime.activity().threads, 1);
}

#[tokio::test]
async fn blame_is_entered_around_user_code_and_loading() {
    let world = World::new();
    world.deploy("slow", SLOW).await;
    assert!(world.blame.entered.lock().unwrap().contains(&"load slow".to_owned()));
    world.blame.entered.lock().unwrap().clear();
    world.json("fast", get()).await;
    assert_eq!(*world.blame.entered.lock().unwrap(), ["fast", "-"]);
    world.blame.entered.lock().unwrap().clear();
    world.json("wait", post(json!(0.01))).await;
    let entered = world.blame.entered.lock().unwrap().clone();
    assert!(entered.len() >= 4 && entered.iter().step_by(2).all(|name| name == "wait"), "{entered:?}");
}

#[tokio::test]
async fn threads_forks_and_processes_harm_nobody() {
    let world = World::new();
    let source = r#"
import os, sys, subprocess, threading, multiprocessing, time
from crosstie import Service
class Threads(Service):
    name = "threads"
    def handle(self):
        found = []
        def work(n):
            found.append([n, self.cid, self.invoke("leaf", n)])
        threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        return [sorted(n for n, _, _ in found), all(c == self.cid for _, c, _ in found), sorted(v for _, _, v in found)]
class Leaf(Service):
    name = "leaf"
    def handle(self):
        return self.request.payload * 10
class Forks(Service):
    name = "forks"
    def handle(self):
        pid = os.fork()
        if pid == 0:
            try:
                self.invoke("leaf", 1)
            except RuntimeError as error:
                return "the child must never answer"
        return ["parent", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
class ForksRaises(Service):
    name = "forks.raises"
    def handle(self):
        pid = os.fork()
        if pid == 0:
            raise ValueError("child")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
class Runs(Service):
    name = "runs"
    def handle(self):
        return subprocess.run([sys.executable, "-c", "print(6*7)"], capture_output=True, text=True).stdout.strip()
class Spawns(Service):
    name = "spawns"
    def handle(self):
        import math
        from concurrent.futures import ProcessPoolExecutor
        with multiprocessing.Pool(2) as pool:
            found = [multiprocessing.get_start_method(), pool.map(math.factorial, [3, 4]), pool.map(own, [1, 2])]
        with ProcessPoolExecutor(1) as executor:
            return [*found, executor.submit(own, Box(5)).result().value]
class Box:
    def __init__(self, value):
        self.value = value
def own(value):
    return Box(value.value * 2) if isinstance(value, Box) else value * 2
"#;
    world.deploy("procs", source).await;
    for _ in 0..3 {
        assert_eq!(world.json("threads", get()).await, json!([[0, 1, 2, 3, 4], true, [0, 10, 20, 30, 40]]));
        assert_eq!(world.json("forks", get()).await, json!(["parent", 0]));
        assert_eq!(world.json("forks.raises", get()).await, json!(0));
    }
    assert_eq!(world.json("runs", get()).await, json!("42"));
    assert_eq!(world.json("spawns", get()).await, json!(["spawn", [6, 24], [2, 4], 10]));
    assert_eq!(world.json("leaf", post(json!(2))).await, json!(20));
}

#[tokio::test]
async fn no_call_is_forgotten_in_a_crowd() {
    let world = World::with(PythonSettings { handler_threads: 4, queue: 1000, ..PythonSettings::default() });
    world.deploy("slow", SLOW).await;
    let tasks: Vec<_> = (0..48)
        .map(|number| {
            let find = |name: &str| world.directory.services.lock().unwrap()[name].clone();
            let (fast, sleep, wait) = (find("fast"), find("sleep"), find("wait"));
            tokio::spawn(async move {
                for round in 0..40 {
                    let (service, request) = match (number * 7 + round) % 11 {
                        0 => (&sleep, post(json!(0.002))),
                        1 | 2 => (&wait, post(json!(0.001))),
                        _ => (&fast, get()),
                    };
                    let call = service.invoke(request.message);
                    if (number + round) % 13 == 0 {
                        // A client that goes away.
                        let _ = tokio::time::timeout(Duration::from_micros(300), call).await;
                        continue;
                    }
                    let answer = tokio::time::timeout(Duration::from_secs(20), call).await;
                    answer.expect("a call was forgotten").unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    world.until("everything is done", |world| world.runtime.activity().queued == 0).await;
}

#[tokio::test]
async fn short_handlers_in_a_crowd_share_few_threads() {
    let world = World::new();
    world.deploy("slow", SLOW).await;
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let service = world.directory.services.lock().unwrap()["fast"].clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    service.invoke(get().message).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // One in a quiet moment; a busy machine may make a handler look stuck for milliseconds.
    assert!(world.runtime.activity().threads <= 12, "{:?}", world.runtime.activity());
}
