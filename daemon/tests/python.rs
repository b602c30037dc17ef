//! Another language drives the real daemon: stubs made of the `.proto` files by grpcio-tools, every rpc kind that a
//! client needs, health, reflection, bad input; and the README's own commands and Python lines, as they stand there.
//!
//! Needs a Python with `client/python/requirements.txt`, which `scripts/test` installs and names in
//! `POINTSMAN_PYTHON`. Without it the Python tests say SKIPPED and pass, unless `POINTSMAN_STRICT=1`.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

mod process;

use process::{Daemon, root};

type Failure = Box<dyn std::error::Error>;

/// Where the README's examples expect the daemon.
const README_ADDRESS: &str = "127.0.0.1:7001";

#[test]
fn python_drives_the_daemon() -> Result<(), Failure> {
    let Some(python) = python() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let stubs = stubs(&python, folder.path())?;
    let daemon = demo(folder.path())?;
    let check = root().join("client/python/check.py");
    let output =
        Command::new(&python).arg("-B").arg(check).arg(&daemon.address).env("PYTHONPATH", &stubs).output()?;
    let said = succeeded("check.py", &output);
    assert_eq!(said.lines().count(), 6, "{said}");
    Ok(())
}

#[test]
fn the_readme_runs() -> Result<(), Failure> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let snippets = blocks(&readme, "python");
    assert_eq!(snippets.len(), 1, "the README shows one call from Python");
    let Some(python) = python() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let stubs = stubs(&python, folder.path())?;
    let daemon = demo(folder.path())?;
    for snippet in snippets {
        assert!(snippet.contains(README_ADDRESS));
        let code = snippet.replace(README_ADDRESS, &daemon.address);
        let output = Command::new(&python).args(["-B", "-c", &code]).env("PYTHONPATH", &stubs).output()?;
        let said = succeeded("the README's Python", &output);
        assert!(!said.trim().is_empty(), "the README's Python prints the answer");
    }
    Ok(())
}

#[test]
fn the_readmes_commands_run() -> Result<(), Failure> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let folder = tempfile::tempdir()?;
    let daemon = demo(folder.path())?;
    let bin = Path::new(env!("CARGO_BIN_EXE_pointsmand")).parent().map(Path::to_path_buf).unwrap_or_default();
    if !bin.join("pointsman").exists() {
        return not_run("target has no pointsman beside pointsmand; build the workspace");
    }
    practise(&bin, &daemon, folder.path())?;
    let (mut ran, mut candidate) = (0, String::new());
    for command in blocks(&readme, "sh").iter().flat_map(|block| block.lines()) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["pointsman", subcommand, rest @ ..] => {
                // The README cannot know which candidate was trained here, and files go elsewhere.
                let command = match (*subcommand, rest) {
                    ("promote", [shown, ..]) => command.replace(shown, &candidate),
                    _ => command.replace("evaluation.html", &folder.path().join("page.html").to_string_lossy()),
                };
                let output = shell(&command, &bin).env("POINTSMAN_ADDRESS", &daemon.address).output()?;
                let said = succeeded(&command, &output);
                if *subcommand == "train" {
                    let named = |word: &&str| word.starts_with("hybrid-");
                    candidate = said.split_whitespace().find(named).unwrap_or_default().to_owned();
                    assert!(!candidate.is_empty(), "training names its candidate: {said}");
                }
                ran += 1;
            }
            // The daemon itself is up already; what else it can do must at least be spelt right.
            ["pointsmand", subcommand, ..] => {
                let output = shell(&format!("pointsmand {subcommand} --help"), &bin).output()?;
                let help = succeeded(command, &output);
                let flags = words.iter().filter(|word| word.starts_with("--"));
                flags.for_each(|flag| assert!(help.contains(flag), "{command}: {flag} is unknown"));
                ran += 1;
            }
            [script, ..] if script.starts_with("scripts/") => {
                assert!(root().join(script).is_file(), "{script} does not exist");
                ran += 1;
            }
            _ => {}
        }
    }
    assert!(ran >= 5, "only {ran} commands of the README were found");
    Ok(())
}

/// Requests with feedback, enough to train on and to evaluate by.
fn practise(bin: &Path, daemon: &Daemon, folder: &Path) -> Result<(), Failure> {
    let rows = folder.join("rows.jsonl");
    let world = "data/demo/world.toml";
    let write = format!("pointsmand workload --world {world} --rows 900 --out {}", rows.display());
    succeeded(&write, &shell(&write, bin).output()?);
    let play = format!("pointsman play --workload {}", rows.display());
    succeeded(&play, &shell(&play, bin).env("POINTSMAN_ADDRESS", &daemon.address).output()?);
    Ok(())
}

/// The Python to use; `None` when there is none and that is allowed.
fn python() -> Option<OsString> {
    let python = std::env::var_os("POINTSMAN_PYTHON");
    if python.is_none() {
        drop(not_run(
            "POINTSMAN_PYTHON names no Python with client/python/requirements.txt; scripts/test sets it",
        ));
    }
    python
}

fn not_run(why: &str) -> Result<(), Failure> {
    let is_strict = std::env::var_os("POINTSMAN_STRICT").is_some_and(|value| value == "1");
    assert!(!is_strict, "SKIPPED is not allowed here: {why}");
    // Past the test harness, which hides what a passing test prints.
    writeln!(std::io::stderr().lock(), "SKIPPED: {why}")?;
    Ok(())
}

fn demo(folder: &Path) -> Result<Daemon, Failure> {
    Ok(Daemon::start(&root().join("data/demo/pointsman.toml"), &folder.join("state"))?)
}

fn stubs(python: &OsString, folder: &Path) -> Result<OsString, Failure> {
    let out = folder.join("stubs");
    let generator = root().join("client/python/stubs.py");
    let output = Command::new(python).arg("-B").arg(generator).arg(&out).output()?;
    succeeded("stubs.py", &output);
    Ok(out.into())
}

/// A line of the README as a shell would run it from the root, with our binaries on the path.
fn shell(command: &str, bin: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut with_bin = OsString::from(bin);
    with_bin.push(":");
    with_bin.push(path);
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("PATH", with_bin).current_dir(root());
    shell
}

fn succeeded(what: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{what}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// The insides of a page's code blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let bodies = page.split(&fence).skip(1);
    bodies.filter_map(|rest| rest.split_once("```").map(|(body, _)| body.to_owned())).collect()
}
