//! `vidfit bench`: this program and the reference, side by side.

pub mod card;
mod cases;
pub mod execute;
mod holders;
pub mod memory;
mod noise;
mod predict;
mod table;

use crate::args::{BenchArgs, BenchCommand};
use crate::exit::Failure;
use crate::human::size;
use crate::say::line;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a benchmark.
pub fn run(args: BenchArgs) -> Result<(), Failure> {
    match args.command {
        BenchCommand::Case { name, threads, repeat } => cases::run(&name, threads, repeat),
        BenchCommand::Predict { threads, repeat, only, fixtures } => {
            predict::run(threads, repeat, only.as_deref(), &fixtures)
        }
        BenchCommand::Reference { python, script, threads, repeat, only } => {
            reference(&python, &script, threads, repeat, only.as_deref())
        }
        BenchCommand::Memory(args) => memory::run(&args),
        BenchCommand::Execute(args) => execute::run(&args),
        BenchCommand::Card(args) => card::run(&args),
    }
}

/// What both sides print for a case.
#[derive(Deserialize)]
struct Measurement {
    seconds: f64,
    peak_rss_bytes: u64,
}

fn reference(
    venv: &Path,
    script: &Path,
    threads: usize,
    repeat: usize,
    only: Option<&str>,
) -> Result<(), Failure> {
    let python = ["bin/python", "Scripts/python.exe"].map(|name| venv.join(name));
    let Some(python) = python.iter().find(|path| path.is_file()) else {
        return Err(Failure::input(format!("there is no Python in {}", venv.display())));
    };
    if !script.is_file() {
        return Err(Failure::input(format!(
            "there is no {}; run this in the repository, or name the script with --script",
            script.display()
        )));
    }
    let own = std::env::current_exe().map_err(Failure::other)?;
    let (threads, repeat) = (threads.to_string(), repeat.to_string());
    line!("| f32, {threads} threads | vidfit | reference | ratio | memory | reference | ratio |");
    line!("|---|---:|---:|---:|---:|---:|---:|");
    for name in cases::NAMES.into_iter().filter(|name| only.is_none_or(|only| only == *name)) {
        let flags = ["--threads", &threads, "--repeat", &repeat];
        let ours = measure(&own, ["bench", "case", name].iter().chain(&flags))?;
        let script = script.to_string_lossy();
        let theirs = measure(python, [&*script, "--only", name].iter().chain(&flags))?;
        line!(
            "| {name} | {:.2} s | {:.2} s | **{:.2}** | {} | {} | **{:.2}** |",
            ours.seconds,
            theirs.seconds,
            ours.seconds / theirs.seconds,
            size(ours.peak_rss_bytes),
            size(theirs.peak_rss_bytes),
            ours.peak_rss_bytes as f64 / theirs.peak_rss_bytes as f64
        );
    }
    Ok(())
}

/// Runs one side in a process of its own and reads the last line it prints.
fn measure<'a>(
    program: &PathBuf,
    arguments: impl Iterator<Item = &'a &'a str>,
) -> Result<Measurement, Failure> {
    let name = program.display();
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| Failure::other(format!("{name} did not start: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        Failure::other(format!("{name} failed ({}): {}", output.status, errors.trim_end()))
    })
}
