//! `vidfit runs`: what is kept of runs.

mod table;

use crate::args::{GcArgs, RunsArgs, RunsCommand};
use crate::exit::Failure;
use crate::human::size;
use crate::say::{answer, line, note};
use std::time::{Duration, SystemTime};
use vidfit_engine::runs::{CleanRules, Dropped, Listed, RunId, Runs, RunsError, Standing};

/// Lists runs, shows one, or takes some away.
pub fn run(args: &RunsArgs) -> Result<(), Failure> {
    let runs = args.folder.runs();
    match &args.command {
        None => list(&runs, args.json),
        Some(RunsCommand::Show { run, json }) => show(&runs.look(&runs.find(run)?), *json),
        Some(RunsCommand::Rm { names }) => remove(&runs, names),
        Some(RunsCommand::Gc(args)) => clean(&runs, args),
    }
}

fn list(runs: &Runs, is_json: bool) -> Result<(), Failure> {
    let listed = runs.list()?;
    if is_json {
        let all: Vec<_> = listed.iter().map(table::as_json).collect();
        return answer(&serde_json::Value::from(all).to_string());
    }
    if listed.is_empty() {
        note!("there are no runs in {}", runs.folder().display());
        return Ok(());
    }
    answer(&table::of(&listed, SystemTime::now()))
}

fn show(run: &Listed, is_json: bool) -> Result<(), Failure> {
    match is_json {
        true => answer(&table::as_json(run).to_string()),
        false => answer(&table::of_one(run)),
    }
}

/// Takes away each of the runs that were named, or none if one of the names is wrong.
fn remove(runs: &Runs, names: &[String]) -> Result<(), Failure> {
    let mut ids: Vec<RunId> =
        names.iter().map(|name| runs.find(name)).collect::<Result<_, RunsError>>()?;
    ids.sort();
    ids.dedup();
    for id in &ids {
        if matches!(runs.look(id).standing, Standing::Running { .. }) {
            // Says in which process.
            runs.open(id)?;
        }
    }
    for id in &ids {
        let bytes = runs.remove(id)?;
        note!("took away run {id} ({})", size(bytes));
    }
    Ok(())
}

fn clean(runs: &Runs, args: &GcArgs) -> Result<(), Failure> {
    let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
    let rules = CleanRules {
        now: SystemTime::now(),
        drop_frames_after: days(args.frames_after),
        drop_runs_after: args.older_than.map(days),
        keep_last: args.keep_last,
        is_dry: args.dry_run,
    };
    let cleaned = runs.clean(&rules)?;
    let would = if args.dry_run { "would drop" } else { "dropped" };
    for (id, what, bytes) in &cleaned.dropped {
        let id = id.as_ref().map_or("a run that never began".into(), |id| format!("run {id}"));
        let what = match what {
            Dropped::Run => "",
            Dropped::Frames => "frames and state of ",
            Dropped::Leftovers => "unfinished files of ",
        };
        line!("{would} {what}{id} ({})", size(*bytes));
    }
    let (bytes, would_free) = (cleaned.bytes(), if args.dry_run { "would free" } else { "freed" });
    line!("{would_free} {}", size(bytes));
    match cleaned.failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::other(cleaned.failed.join("\n"))),
    }
}
