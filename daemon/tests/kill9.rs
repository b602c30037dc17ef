//! `kill -9` in the middle of traffic: what was acknowledged is still there, what was spent is still spent, and what
//! was learned is bit for bit what the stored rows teach.
//!
//! Requests and feedback run side by side over gRPC until so many feedbacks are acknowledged; then the process is
//! killed at once, with calls and commits under way. Between two kills it is drained, so that later kills find a saved
//! state with rows behind it, as real ones do. Nothing here waits for a time.

use std::fs;
use std::path::{Path, PathBuf};

use pointsman_client::{Client, ClientError, Target, v1};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

mod process;

use process::{Daemon, pointsmand, root};

const ROUNDS: usize = 3;
const CALLERS: usize = 16;
/// Acknowledgements to wait for before each kill.
const ACKS: usize = 200;
/// Changes of who decides before each kill.
const CHANGES: usize = 7;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A feedback that the daemon has said to be durable.
struct Acknowledged {
    decision: String,
    sequence: u64,
    score: f64,
    cost_usd_nanos: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let config = config(folder.path())?;
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let daemon = Daemon::start(&config, &state)?;
        let before = acknowledged.len();
        killed_in_traffic(daemon, round, &mut acknowledged).await?;
        assert!(acknowledged.len() >= before + ACKS, "the traffic ended by itself");

        verify(&config, &state)?;

        let daemon = Daemon::start(&config, &state)?;
        everything_is_there(&daemon, &acknowledged).await?;
        // The state as it was learned is saved now, so the next kill leaves a saved state with rows behind it.
        drain(daemon).await?;
        verify(&config, &state)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_who_decides_is_whole_or_not_at_all() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let config = config(folder.path())?;
    let rules = "[policy]\nkind = \"rules\"\ndefault = [\"atlas-large\"]\n";
    fs::write(&config, format!("{rules}{}", fs::read_to_string(&config)?))?;
    let mut acknowledged = 0;
    for _ in 0..ROUNDS {
        let daemon = Daemon::start(&config, &state)?;
        let client = Client::connect(Target::new(&daemon.address)).await?;
        let (sender, mut acks) = mpsc::unbounded_channel();
        let mut changing = JoinSet::new();
        changing.spawn(change_until_it_dies(client, sender));
        for _ in 0..CHANGES {
            acks.recv().await.ok_or("the changes have ended before the kill")?;
            acknowledged += 1;
        }
        drop(daemon);
        while acks.recv().await.is_some() {
            acknowledged += 1;
        }
        changing.join_all().await;

        let daemon = Daemon::start(&config, &state)?;
        let client = Client::connect(Target::new(&daemon.address)).await?;
        let policies = client.list_policies(v1::ListPoliciesRequest {}).await?.policies;
        let running: Vec<_> = policies.iter().filter(|p| p.state() == v1::PolicyState::Running).collect();
        assert_eq!(running.len(), 1, "{policies:?}");
        let request = v1::GetReportRequest { audit_max: 1_000, ..Default::default() };
        let audit = client.get_report(request).await?.audit;
        // The first entry is the configuration's; of the change that was cut all is there, or nothing.
        let changes = audit.len() - 1;
        assert!((acknowledged..=acknowledged + 1).contains(&changes), "{acknowledged} {changes}");
        assert_eq!(
            audit.first().map(|entry| entry.to_version.as_str()),
            running.first().map(|p| p.version.as_str())
        );
        acknowledged = changes;
    }
    Ok(())
}

/// Promotes the bandit and returns to the rules, again and again.
async fn change_until_it_dies(client: Client, acks: mpsc::UnboundedSender<()>) {
    let Ok(listed) = client.list_policies(v1::ListPoliciesRequest {}).await else { return };
    let bandit = listed.policies.iter().find(|policy| policy.kind() == v1::PolicyKind::Bandit);
    let Some((version, mut runs)) = bandit.map(|p| (p.version.clone(), p.state() == v1::PolicyState::Running))
    else {
        return;
    };
    loop {
        let changed = if runs {
            client.rollback(v1::RollbackRequest::default()).await.map(drop)
        } else {
            let request = v1::PromoteRequest { version: version.clone(), force: true, ..Default::default() };
            client.promote(request).await.map(drop)
        };
        if changed.is_err() || acks.send(()).is_err() {
            return;
        }
        runs = !runs;
    }
}

/// The saved state with the rows behind it is bit for bit what all rows teach.
fn verify(config: &Path, state: &Path) -> Result<(), Failure> {
    let mut command = pointsmand();
    let verified = command.arg("verify").arg("--config").arg(config).arg("--state-dir").arg(state).output()?;
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success(), "{said}{}", String::from_utf8_lossy(&verified.stderr));
    Ok(())
}

/// Ends it in an orderly way.
async fn drain(mut daemon: Daemon) -> Result<(), Failure> {
    let client = Client::connect(Target::new(&daemon.address)).await?;
    client.drain(v1::DrainRequest::default()).await?;
    drop(client);
    let ended = daemon.child.wait()?;
    assert!(ended.success(), "the drain ended with {ended}");
    Ok(())
}

/// The demo's world under a budget, so that spending is booked.
fn config(folder: &Path) -> Result<PathBuf, Failure> {
    let world = root().join("data/demo/world.toml");
    let file = folder.join("pointsman.toml");
    let text = format!(
        "[budget]\namount_usd = \"1000\"\nwindow = \"total\"\n\
         [[backend]]\nname = \"world\"\nkind = \"simulated\"\nworld = \"{}\"\n",
        world.display()
    );
    fs::write(&file, text)?;
    Ok(file)
}

/// Kills the daemon once enough is acknowledged; gathers every acknowledgement that reached a caller, late ones too.
async fn killed_in_traffic(
    daemon: Daemon,
    round: usize,
    acknowledged: &mut Vec<Acknowledged>,
) -> Result<(), Failure> {
    let (sender, mut acks) = mpsc::unbounded_channel();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let client = Client::connect(Target::new(&daemon.address)).await?;
        callers.spawn(until_it_dies(client, format!("{round}-{caller}"), sender.clone()));
    }
    drop(sender);
    let first = acknowledged.len();
    while acknowledged.len() < first + ACKS {
        acknowledged.push(acks.recv().await.ok_or("every caller has ended before the kill")?);
    }
    drop(daemon);
    while let Some(late) = acks.recv().await {
        acknowledged.push(late);
    }
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    Ok(())
}

/// Asks and judges until a call fails: every answer is judged, every third judgement is corrected.
async fn until_it_dies(client: Client, name: String, acks: mpsc::UnboundedSender<Acknowledged>) {
    let mut asked = 0_u32;
    loop {
        let outcome = ask_and_judge(&client, &name, asked, &acks).await;
        if outcome.is_err() {
            return;
        }
        asked += 1;
    }
}

async fn ask_and_judge(
    client: &Client,
    name: &str,
    asked: u32,
    acks: &mpsc::UnboundedSender<Acknowledged>,
) -> Result<(), ClientError> {
    let prompt = format!("Question {asked} of {name}: which of the four answers is right?");
    let spec = v1::RequestSpec { prompt, answer_kind: v1::AnswerKind::Label.into(), ..Default::default() };
    let reply = client.route(v1::RouteRequest { request: Some(spec), ..Default::default() }).await?;
    let right = asked.is_multiple_of(2);
    let verdicts = if asked.is_multiple_of(3) { vec![!right, right] } else { vec![right] };
    for correct in verdicts {
        let feedback = v1::Feedback {
            decision_id: reply.decision_id.clone(),
            source: "kill9".to_owned(),
            verdict: Some(v1::feedback::Verdict::Correct(correct)),
            ..Default::default()
        };
        let ack = client.feedback(feedback).await?;
        let decision = reply.decision_id.clone();
        let cost_usd_nanos = reply.cost_usd_nanos;
        // Nobody listens any more once the test has failed.
        drop(acks.send(Acknowledged { decision, sequence: ack.sequence, score: ack.score, cost_usd_nanos }));
    }
    Ok(())
}

/// Each acknowledged feedback stands in its trace, and at least what the traces cost counts as spent.
async fn everything_is_there(daemon: &Daemon, acknowledged: &[Acknowledged]) -> Result<(), Failure> {
    let client = Client::connect(Target::new(&daemon.address)).await?;
    let mut costs = std::collections::BTreeMap::new();
    for ack in acknowledged {
        let request = v1::GetTraceRequest { decision_id: ack.decision.clone() };
        let trace = client.get_trace(request).await?.trace.ok_or("a reply without its trace")?;
        let kept = trace.feedback.iter().find(|entry| entry.sequence == ack.sequence);
        let kept = kept.ok_or_else(|| format!("feedback {} of {} is lost", ack.sequence, ack.decision))?;
        assert_eq!(kept.score.to_bits(), ack.score.to_bits(), "feedback {} has changed", ack.sequence);
        costs.insert(&ack.decision, ack.cost_usd_nanos);
    }
    let budget = client.get_budget(v1::GetBudgetRequest::default()).await?.budget.ok_or("no budget")?;
    let counted_usd_micros = budget.spent_usd_micros + budget.unknown_usd_micros;
    let known_usd_micros = costs.values().sum::<i64>() / 1_000;
    assert!(known_usd_micros > 0, "the demo's world is free of charge");
    assert!(
        counted_usd_micros >= known_usd_micros,
        "{counted_usd_micros} of at least {known_usd_micros} are booked"
    );
    Ok(())
}
