//! The commands that say what this machine has, and what cards there are.
#![allow(clippy::unwrap_used)] // A test may panic.

use serde_json::Value;
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use vidfit_engine::progress::Progress;
use vidfit_engine::running::{Running, RunningJob};

/// The program with this folder as the user's own.
fn vidfit(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vidfit"));
    command.args(arguments).env("XDG_RUNTIME_DIR", folder).env("XDG_STATE_HOME", folder);
    command
}

fn output(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    vidfit(folder.path(), arguments).output().unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a line has the form of the guide: `KIND Status: 1.00GB / 2.00GB used (50%), 1.00GB
/// available`, with numbers that agree.
fn is_status(kind: &str, line: &str) -> bool {
    let numbers = (|| {
        let line = line.strip_prefix(&format!("{kind} Status: "))?;
        let (used, rest) = line.split_once("GB / ")?;
        let (total, rest) = rest.split_once("GB used (")?;
        let (percent, rest) = rest.split_once("%), ")?;
        let (available, _) = rest.split_once("GB available")?;
        Some([used, total, percent, available].map(|number| number.parse::<f64>().unwrap()))
    })();
    numbers.is_some_and(|[used, total, percent, available]| {
        (used + available - total).abs() < 0.02 && (100.0 * used / total - percent).abs() < 1.0
    })
}

#[test]
fn status_has_a_line_for_the_cards_and_one_for_the_ram() {
    for flags in [&["status"][..], &["status", "--processes"]] {
        let text = succeeds(flags);
        let lines: Vec<&str> = text.lines().collect();
        assert!(is_status("RAM", lines.last().unwrap()), "{text}");
        let cards = lines[0].contains("no NVIDIA card") || lines[0].contains("VRAM Status: ");
        assert!(cards && lines.len() >= 2, "{text}");
    }
}

#[test]
fn status_as_json_gives_bytes() {
    let status: Value = serde_json::from_str(&succeeds(&["status", "--json"])).unwrap();
    let bytes = |what: &str| status["ram"][what].as_u64().unwrap();
    assert_eq!(bytes("used_bytes") + bytes("available_bytes"), bytes("total_bytes"));
    assert!(bytes("total_bytes") > 1 << 28);
    let gpus = status["gpus"].as_array().unwrap();
    let faults = status["faults"].as_array().unwrap();
    // Either there are cards, or there is a reason why not.
    assert_eq!(gpus.is_empty() && faults.is_empty(), status["no_gpus"].is_string(), "{status}");
}

/// A job as this process would report it, seen by the program.
#[test]
fn monitor_shows_the_jobs_that_run() {
    let folder = tempfile::tempdir().unwrap();
    let once = |flags: &[&str]| {
        let arguments = [&["monitor", "--once"][..], flags].concat();
        let output = vidfit(folder.path(), &arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(once(&[]).contains("no vidfit job is running"));

    let job = RunningJob {
        model: "CogVideoX-5b".into(),
        device: "sim:8GB".into(),
        arena_bytes: 5 << 29,
        output: Some("panda.mp4".into()),
    };
    let mut running = Running::start_in(&folder.path().join("vidfit"), job).unwrap();
    running.hear(&Progress::PhaseBegan { phase: "denoise", steps: Some(50) });
    let text = once(&[]);
    for words in ["CogVideoX-5b on sim:8GB", "arena 2.50 GB", "panda.mp4", "denoise 0/50"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let look: Value = serde_json::from_str(&once(&["--json"])).unwrap();
    assert_eq!(look["jobs"][0]["pid"], std::process::id());
    assert_eq!(look["jobs"][0]["phase"], "denoise");
    assert_eq!(look["jobs"][0]["arena_bytes"], 5u64 << 29);
    assert!(look["ram"]["total_bytes"].as_u64() > Some(0));

    drop(running);
    assert!(once(&[]).contains("no vidfit job is running"));
}

/// A job that was killed leaves its record behind; nobody is told of it.
#[test]
fn monitor_does_not_show_a_job_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("vidfit");
    let running = Running::start_in(&place, RunningJob::default()).unwrap();
    // What would lie there: the same files, under no lock.
    let left = |extension: &str| place.join(format!("{}-1.{extension}", std::process::id()));
    for entry in std::fs::read_dir(&place).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, left(path.extension().unwrap().to_str().unwrap())).unwrap();
    }
    drop(running);
    assert!(left("json").exists() && left("lock").exists());
    let output = vidfit(folder.path(), &["monitor", "--once"]).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("no vidfit job is running"));
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}

#[test]
fn monitor_streams_json_until_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = vidfit(folder.path(), &["monitor", "--json", "--interval", "0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut time = || {
        let look: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        look["time_unix_seconds"].as_f64().unwrap()
    };
    let (first, second) = (time(), time());
    assert!(second - first >= 0.09, "{first} {second}");
    drop(lines);
    assert!(child.wait().unwrap().success());
}

#[test]
fn monitor_without_a_terminal_looks_once_and_says_so() {
    let output = output(&["monitor"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a terminal"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("RAM Status: "));
    let wrong = self::output(&["monitor", "--interval", "0"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("0.1 to 3600"));
}

#[test]
fn gpus_lists_the_catalogue_and_marks_assumptions() {
    let text = succeeds(&["gpus"]);
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
    let words: Vec<&str> = row("RTX 3060 12GB").split_whitespace().collect();
    assert_eq!(words[3..9], ["12", "GB", "~0.39", "GB", "360", "GB/s"]);
    assert!(row("RTX 4090 Laptop").contains("~PCIe"));
    assert!(!row("RTX 4090 ").contains("~PCIe"));
    assert!(text.contains("~  an assumption"));
    assert!(!text.contains("whitepaper"));
    assert!(succeeds(&["gpus", "--sources"]).contains("NVIDIA Ada GPU Architecture whitepaper"));
    let cards: Value = serde_json::from_str(&succeeds(&["gpus", "--json"])).unwrap();
    assert!(cards.as_array().unwrap().len() > 100);
}

#[test]
fn gpus_shows_the_cards_of_a_name() {
    let shared = output(&["gpus", "RTX 3060"]);
    assert!(shared.status.success());
    let text = String::from_utf8(shared.stdout).unwrap();
    for card in ["RTX 3060 12GB", "RTX 3060 8GB", "RTX 3060 Laptop"] {
        assert!(text.contains(card), "{card} in {text}");
        assert!(String::from_utf8_lossy(&shared.stderr).contains(card));
    }
    assert!(!text.contains("RTX 3060 Ti"), "{text}");

    let one = succeeds(&["gpus", "nvidia geforce rtx 3060 12gb"]);
    for words in ["RTX 3060 12GB\n", "compute capability 8.6", "PCIe 4.0 x16", "whitepaper"] {
        assert!(one.contains(words), "{words} in {one}");
    }
    let json: Value = serde_json::from_str(&succeeds(&["gpus", "RTX 4090", "--json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(json[0]["memory_bytes"], 24u64 << 30);
    assert_eq!(json[0]["assumed"], serde_json::json!(["overhead", "upload"]));

    let unknown = output(&["gpus", "RTX 4900"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("Did you mean RTX 4090"));
}

#[test]
fn a_card_is_measured_in_every_placement() {
    let folder = tempfile::tempdir().unwrap();
    let (json, folder) = (folder.path().join("card.json"), folder.path());
    let model =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/fixtures/checkpoints/5b");
    let words = ["bench", "card", "--device", "sim:80MB", "--model", model, "--steps", "3"];
    let size = ["--frames", "9", "--height", "32", "--width", "32", "--budgets", "9200KB,1MB"];
    let mut command = vidfit(folder, &[&words[..], &size[..], &["--json"]].concat());
    let output = command.arg(&json).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let measured: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let operations = measured["operations"].as_array().unwrap();
    let attention = operations.iter().find(|one| one["name"] == "attention").unwrap();
    // Two heads of 64, 226 tokens of text and 12 of video: 4 · 238² · 128.
    assert_eq!(attention["flops"], 4.0 * 238.0 * 238.0 * 128.0, "{text}");
    assert!(attention["seconds"].as_f64().unwrap() > 0.0);

    let placements = measured["placements"].as_array().unwrap();
    let names: Vec<&str> =
        placements.iter().map(|one| one["placement"].as_str().unwrap()).collect();
    let expected = ["none", "model", "auto", "sequential", "auto, 9.0 MB", "auto, 1.0 MB"];
    assert_eq!(names, expected, "{text}");
    let mut planned = Vec::new();
    for one in placements {
        let measured = &one["measured"];
        let Some(made) = measured.get("made") else {
            // Less than the simulation's own scratch.
            assert!(
                one["placement"] == "auto, 1.0 MB" && measured["does_not_fit"].is_u64(),
                "{one}"
            );
            continue;
        };
        assert_eq!(made["arena_peak_bytes"], made["planned_arena_bytes"], "{one}");
        assert_eq!(made["driver"]["most_bytes"], made["planned_bytes"], "{one}");
        assert_eq!(made["driver"]["least_bytes"], made["planned_bytes"], "{one}");
        assert!(made["step_seconds"].as_f64().unwrap() > 0.0, "{one}");
        planned.push(made["planned_bytes"].as_u64().unwrap());
    }
    assert_eq!(planned.len(), 5, "{text}");
    // All on the card, and everything streamed.
    assert!(planned[0] > planned[3], "{planned:?}");

    // What does not fit at all is not measured, which is no success.
    let words = ["bench", "card", "--device", "sim:10MB", "--model", model, "--steps", "3"];
    let size = ["--frames", "9", "--height", "480", "--width", "720", "--budgets", "9MB"];
    let output = vidfit(folder, &[&words[..], &size[..]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("nothing was measured"), "{said}");
}
