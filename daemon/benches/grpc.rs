//! `Decide` over gRPC, its traces kept, beside a bare tonic server that replies with the same payload.
//!
//! Why a ratio: requests per second say as much about the machine as about the daemon. Both servers are processes of
//! their own with two threads, the load generator shares the cores with them, and the two are measured in turns in one
//! run, so that a change of the machine's pace meets both. The bare server is this binary called with `echo`; what it
//! replies is a reply of the daemon, recorded at the start.
//!
//! A call that fails ends the bench: a refused request is quick and would flatter the figures.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pointsman_proto::v1;
use pointsman_proto::v1::router_service_client::RouterServiceClient;
use pointsman_proto::v1::router_service_server::{RouterService, RouterServiceServer};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(3);
/// Turns of each server; the median of them counts.
const TURNS: usize = 3;
/// Connections that the callers share.
const CONNECTIONS_MAX: usize = 8;
/// Words of the prompt: about 200 tokens.
const PROMPT_WORDS: usize = 150;

type Service = RouterServiceClient<Channel>;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("echo") {
        let reply = arguments.next().context("echo needs the file of its reply")?;
        return runtime.block_on(echo(Path::new(&reply)));
    }
    runtime.block_on(compare())
}

/// Measures both servers at both concurrencies and prints the table.
async fn compare() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let daemon = Process::daemon(folder.path())?;
    let reply = connect(&daemon.address).await?.decide(request()).await?.into_inner();
    let reply_bytes = reply.encoded_len();
    let file = folder.path().join("reply");
    std::fs::write(&file, reply.encode_to_vec())?;
    let bare = Process::bare(&file)?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "Decide: request {} bytes, reply {reply_bytes} bytes", request().encoded_len())?;
    writeln!(out, "{:>11}  {:<11} {:>10} {:>9} {:>9}", "concurrency", "server", "requests/s", "p50 us", "p99 us")?;
    for callers in [1, 64] {
        let mut turns = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (server, turns) in [&bare, &daemon].into_iter().zip(&mut turns) {
                turns.push(load(&server.address, callers).await?);
            }
        }
        let [bare, daemon] = turns.map(Figures::median);
        for (name, figures) in [("bare tonic", &bare), ("pointsmand", &daemon)] {
            let Figures { per_s, p50_us, p99_us } = figures;
            writeln!(out, "{callers:>11}  {name:<11} {per_s:>10.0} {p50_us:>9} {p99_us:>9}")?;
        }
        writeln!(out, "{callers:>11}  {:<11} {:>10.2}", "ratio", daemon.per_s / bare.per_s)?;
    }
    Ok(())
}

/// What one turn measured.
#[derive(Debug, Clone, Default)]
struct Figures {
    per_s: f64,
    p50_us: u128,
    p99_us: u128,
}

impl Figures {
    /// The turn in the middle by requests per second.
    fn median(mut turns: Vec<Self>) -> Self {
        turns.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
        let middle = turns.len() / 2;
        turns.into_iter().nth(middle).unwrap_or_default()
    }

    fn of(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).map_or(0, Duration::as_micros);
        Self { per_s: latencies.len() as f64 / elapsed.as_secs_f64(), p50_us: at(50), p99_us: at(99) }
    }
}

/// So many callers, each with one call under way at a time.
async fn load(address: &str, callers: usize) -> anyhow::Result<Figures> {
    let mut connections = Vec::new();
    for _ in 0..callers.min(CONNECTIONS_MAX) {
        connections.push(connect(address).await?);
    }
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let mut running = JoinSet::new();
    for connection in connections.iter().cycle().take(callers) {
        running.spawn(call_until(connection.clone(), begin, end));
    }
    let mut latencies = Vec::new();
    while let Some(ended) = running.join_next().await {
        latencies.extend(ended??);
    }
    ensure!(!latencies.is_empty(), "no call came to an end");
    Ok(Figures::of(latencies, MEASURED))
}

/// Calls one after the other; the latencies of those that began and ended inside the measured time.
async fn call_until(mut service: Service, begin: Instant, end: Instant) -> Result<Vec<Duration>, Status> {
    let request = request();
    let mut latencies = Vec::new();
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(latencies);
        }
        service.decide(request.clone()).await?;
        let ended = Instant::now();
        if sent >= begin && ended <= end {
            latencies.push(ended - sent);
        }
    }
}

async fn connect(address: &str) -> anyhow::Result<Service> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
    Ok(RouterServiceClient::new(channel))
}

fn request() -> v1::DecideRequest {
    let words =
        ["signal", "points", "junction", "timetable", "freight", "platform", "whistle", "gauge", "sleeper"];
    let prompt: Vec<&str> = words.into_iter().cycle().take(PROMPT_WORDS).collect();
    let prompt = prompt.join(" ");
    let spec = v1::RequestSpec { prompt, answer_kind: v1::AnswerKind::Label.into(), ..Default::default() };
    v1::DecideRequest { request: Some(spec), ..Default::default() }
}

/// A server in a process of its own, killed when dropped.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// The daemon with the demo's models, an empty store, and no budget that decisions without calls could use up.
    fn daemon(folder: &Path) -> anyhow::Result<Self> {
        let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/demo/world.toml");
        let config = folder.join("pointsman.toml");
        let backend = "[[backend]]\nname = \"world\"\nkind = \"simulated\"\n";
        std::fs::write(&config, format!("{backend}world = \"{}\"\n", world.display()))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsmand"));
        command.arg("serve").arg("--config").arg(config);
        command.args(["--listen", "127.0.0.1:0", "--state-dir"]).arg(folder.join("state"));
        Self::ready(command).context("the daemon did not start")
    }

    fn bare(reply: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo").arg(reply);
        Self::ready(command).context("the bare server did not start")
    }

    /// Starts it and reads its address from `... listening on ADDRESS ...`.
    fn ready(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.env("TOKIO_WORKER_THREADS", "2").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let address = line.split_once("listening on ").and_then(|(_, rest)| rest.split_whitespace().next());
        let address = address.with_context(|| format!("it said {line:?}"))?.to_owned();
        Ok(Self { child, address })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The bare server: decodes the request, encodes the reply, nothing in between.
#[derive(Debug)]
struct Bare {
    reply: Arc<v1::DecideResponse>,
}

async fn echo(reply: &Path) -> anyhow::Result<()> {
    let reply = Arc::new(v1::DecideResponse::decode(std::fs::read(reply)?.as_slice())?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(std::io::stdout().lock(), "bare tonic listening on {}", listener.local_addr()?)?;
    let accepted = tokio_stream::StreamExt::map(TcpListenerStream::new(listener), |stream| {
        stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
    });
    Server::builder().add_service(RouterServiceServer::new(Bare { reply })).serve_with_incoming(accepted).await?;
    Ok(())
}

#[tonic::async_trait]
impl RouterService for Bare {
    type RouteStreamStream = tokio_stream::Empty<Result<v1::RouteStreamResponse, Status>>;

    async fn decide(&self, _: Request<v1::DecideRequest>) -> Result<Response<v1::DecideResponse>, Status> {
        Ok(Response::new(v1::DecideResponse::clone(&self.reply)))
    }

    async fn route(&self, _: Request<v1::RouteRequest>) -> Result<Response<v1::RouteResponse>, Status> {
        Err(Status::unimplemented("only Decide"))
    }

    async fn route_stream(
        &self,
        _: Request<v1::RouteStreamRequest>,
    ) -> Result<Response<Self::RouteStreamStream>, Status> {
        Err(Status::unimplemented("only Decide"))
    }

    async fn report_outcomes(
        &self,
        _: Request<v1::ReportOutcomesRequest>,
    ) -> Result<Response<v1::ReportOutcomesResponse>, Status> {
        Err(Status::unimplemented("only Decide"))
    }
}
