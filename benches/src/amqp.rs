//! An AMQP channel to a Python service that does nothing, against a bare consumer; each acknowledges every message.
//!
//! Messages are published faster than they are consumed, so that both work on a full queue with 100 messages in hand.
//! What the broker costs is nobody's, nor is what the publisher costs. How long a message waits in a queue that is
//! filled faster than it is emptied says nothing: these rows have no latency.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use crosstie_parts::RabbitMq;
use crosstie_test_support::parts::TestPart;
use crosstie_test_support::{Environment, HANG};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;
use tokio::runtime;

use crate::Plan;
use crate::beside::Process;
use crate::environment::{apply, await_service, one_server_with, wait};
use crate::paired::{Pairs, Run};
use crate::processes::cpu_time_of_trees;
use crate::python_rest::BODY;
use crate::report::Row;

/// Most that the channel may cost.
const LIMIT: f64 = 2.5;
/// Messages per second of a run: about what takes that long on two cores.
const PER_SECOND: u64 = 5_000;
/// Messages that a consumer has in hand at most.
const PREFETCH: u16 = 100;
/// The channel's queue, and the bare consumer's.
const QUEUES: [&str; 2] = ["bench.ours", "bench.bare"];
/// The channel's name.
const CHANNEL: &str = "bench.consumed";
/// User and password of the broker, as the tests have them, in a URI.
const LOGIN: &str = "crosstie:it%27s%20a%20secret";
/// How often the length of a queue is asked for.
const LOOK: Duration = Duration::from_millis(5);

/// Does nothing.
const SERVICE: &str = r#"
from crosstie import Service

class Nothing(Service):
    name = "bench.nothing"

    def handle(self):
        pass
"#;

/// The row of this file.
///
/// # Errors
/// Something does not start, or a message is not acknowledged exactly once.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let broker = TestPart::start_with("rabbitmq", RabbitMq::new, |plan| plan.tls = None)?;
    let uri = format!("amqp://{LOGIN}@127.0.0.1:{}/crosstie", broker.address.port());
    let environment = served(&broker)?;
    let [own_queue, bare_queue] = QUEUES;
    let mut bare = Consumer::start(&uri, bare_queue)?;
    let supervisor = environment.supervisor().context("the server does not run")?;
    let bare_pid = bare.process.pid()?;
    for queue in QUEUES {
        let is_consumed = || Ok(length(&uri, queue).is_ok_and(|(_, consumers)| consumers > 0));
        wait(&format!("a consumer of {queue}"), is_consumed)?;
    }
    let count = plan.seconds * PER_SECOND;

    let mut theirs = |count| run(bare_pid, &uri, bare_queue, count, || bare.acknowledged());
    let ours = |count| run(supervisor, &uri, own_queue, count, || acknowledged(&environment));
    // What is made once, connections and threads, is made before it counts.
    theirs(count / 10)?;
    ours(count / 10)?;
    let pairs = Pairs::of(plan.rounds, || theirs(count), || ours(count))?;
    // A message that is not acknowledged is in its queue again once its consumer is gone.
    drop(bare);
    environment.stop()?;
    for queue in QUEUES {
        wait(&format!("{queue} without messages and consumers"), || Ok(length(&uri, queue)? == (0, 0)))?;
    }
    let what = "AMQP channel to a Python no-op service, one worker, prefetch 100, acks on";
    Ok(vec![pairs.row(what, "bare lapin consumer, prefetch 100, acks", Some(LIMIT))])
}

/// A server whose channel consumes.
fn served(broker: &TestPart) -> Result<Environment> {
    let environment = one_server_with(1, &[("telemetry.metrics_path", "\"/metrics\"")])?;
    environment.drop_file("nothing.py", SERVICE)?;
    await_service(&environment, "bench.nothing")?;
    let password = String::from_utf8_lossy(broker.credentials.password.expose()).into_owned();
    apply(
        &environment,
        &json!({
            "outgoing": {"broker": {"type": "amqp", "username": broker.credentials.user, "password": password,
                "address": format!("amqp://127.0.0.1:{}/crosstie", broker.address.port())}},
            "channel": {CHANNEL: {"type": "amqp", "service": "bench.nothing", "connection": "broker",
                "queue": QUEUES[0], "prefetch": PREFETCH}},
        }),
    )?;
    Ok(environment)
}

/// Publishes `count` messages, waits until they are acknowledged, and charges that to the processes below `root`.
fn run(
    root: i32,
    uri: &str,
    queue: &str,
    count: u64,
    mut acknowledged: impl FnMut() -> Result<u64>,
) -> Result<Run> {
    let goal = acknowledged()? + count;
    let before = cpu_time_of_trees(&[root]);
    let start = Instant::now();
    publish(uri, queue, count)?;
    let told = format!("{queue}: {count} acknowledgements");
    wait(&told, || Ok(acknowledged()? >= goal))?;
    let lasted = start.elapsed();
    let spent = cpu_time_of_trees(&[root]).saturating_sub(before);
    ensure!(acknowledged()? == goal, "{told}, and {} more", acknowledged()? - goal);
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let count_f = count as f64;
    Ok(Run {
        cost: spent.as_secs_f64() * 1e6 / count_f,
        rate: count_f / lasted.as_secs_f64(),
        p99: None,
        requests: count,
    })
}

/// How many messages the channel acknowledged after its service was done with them; none may end otherwise.
fn acknowledged(environment: &Environment) -> Result<u64> {
    let metrics = environment.http().get("/metrics")?.text();
    let mut done = 0;
    for line in metrics.lines().filter(|line| line.starts_with("crosstie_amqp_messages_total{")) {
        let (labels, value) = line.rsplit_once(' ').context("no value")?;
        if !labels.contains(&format!("channel=\"{CHANNEL}\"")) {
            continue;
        }
        let count: u64 = value.parse()?;
        if labels.contains("outcome=\"done\"") {
            done += count;
        } else {
            ensure!(count == 0, "not every message is done: {line}");
        }
    }
    Ok(done)
}

/// A bare consumer in a process of its own.
struct Consumer {
    process: Process,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Consumer {
    fn start(uri: &str, queue: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["consume", uri, queue]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let questions = process.0.stdin.take().context("no input")?;
        let answers = BufReader::new(process.0.stdout.take().context("no output")?).lines();
        Ok(Self { process, questions, answers })
    }

    fn acknowledged(&mut self) -> Result<u64> {
        writeln!(self.questions)?;
        Ok(self.answers.next().context("the consumer has ended")??.parse()?)
    }
}

/// Consumes `queue`, which is made, and tells how many messages it has acknowledged for each line of its input; ends
/// with that.
///
/// # Errors
/// The broker is away.
pub(crate) fn consume(uri: &str, queue: &str) -> Result<()> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&acknowledged);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            println!("{}", told.load(Ordering::SeqCst));
        }
        std::process::exit(0);
    });
    on_this_thread(async {
        let (_connection, channel) = connect(uri).await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
        while let Some(delivery) = consumer.next().await {
            delivery?.ack(BasicAckOptions::default()).await?;
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        bail!("the queue was deleted")
    })
}

/// Publishes `count` messages and waits until none of them is in the queue any more.
fn publish(uri: &str, queue: &str, count: u64) -> Result<()> {
    on_this_thread(async {
        let (connection, channel) = connect(uri).await?;
        let properties = BasicProperties::default().with_content_type("application/json".into());
        for _ in 0..count {
            let (options, payload) = (BasicPublishOptions::default(), BODY.as_bytes());
            channel.basic_publish("".into(), queue.into(), options, payload, properties.clone()).await?;
        }
        let start = Instant::now();
        // The broker answers once it has taken what was sent before.
        while ready(&channel, queue).await?.0 > 0 {
            ensure!(start.elapsed() < HANG, "{queue} is not consumed");
            tokio::time::sleep(LOOK).await;
        }
        connection.close(200, "done".into()).await?;
        Ok(())
    })
}

/// How many messages wait in a queue, and how many consumers it has.
fn length(uri: &str, queue: &str) -> Result<(u32, u32)> {
    on_this_thread(async {
        let (connection, channel) = connect(uri).await?;
        let found = ready(&channel, queue).await?;
        connection.close(200, "done".into()).await?;
        Ok(found)
    })
}

async fn ready(channel: &Channel, queue: &str) -> Result<(u32, u32)> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
    Ok((found.message_count(), found.consumer_count()))
}

async fn connect(uri: &str) -> Result<(Connection, Channel)> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

fn on_this_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
