//! `vidfit generate --prompts FILE`: many videos, one after another. What goes wrong with one does
//! not keep the others from being made.

mod lines;

use crate::args::{Command, GenerateArgs};
use crate::defaults;
use crate::demo;
use crate::device::{Opened, open};
use crate::exit::Failure;
use crate::generate::output::absolute;
use crate::generate::{Company, Session, job_of, make, takes_demo};
use crate::interrupt;
use crate::model::folder;
use crate::progress::{Shown, listener};
use crate::warm::{self, Warm};
use lines::{Line, numbered, read, spelled};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::pipelines::Pipeline;
use vidfit_engine::planner::Target;
use vidfit_engine::request::Job;
use vidfit_engine::state::RunState;
use vidfit_engine::texts::{Texts, encode_texts};

/// Makes the videos of a file of prompts.
///
/// # Errors
/// Bad input if the file is; otherwise, if a line of it failed, how many did.
pub fn run(path: &Path, batch: &GenerateArgs) -> Result<(), Failure> {
    let shown = Shown::from(batch.progress);
    // A pipe may be waited for, and Ctrl-C then ends that.
    let lines = read(path)?;
    let stop = interrupt::watch()?;
    let mut opened = open(&batch.machine, shown)?;
    opened.announce(shown);
    let words: Vec<OsString> = std::env::args_os().collect();
    let last = lines.last().map_or(1, |line| line.number);
    let mut asked: Vec<_> = lines.iter().map(|line| asked(line, &words, batch, last)).collect();
    refuse_same_outputs(&lines, &mut asked);
    if asked.iter().flatten().any(takes_demo) {
        demo::announce(shown)?;
    }
    let warm = Warm::on(&mut opened, warm::settings()?);
    let mut all = Together { texts: AllTexts::default(), warm };

    let mut ends: Vec<End> = Vec::new();
    for (index, (line, asked_now)) in lines.iter().zip(&asked).enumerate() {
        if index % TEXTS_AT_ONCE == 0 {
            let window = &asked[index..asked.len().min(index + TEXTS_AT_ONCE)];
            all.texts = AllTexts::encode(window, &opened, &stop, shown);
        }
        if stop.load(Ordering::Relaxed) {
            ends.push(End::NotBegun);
            continue;
        }
        shown.say(&format!("\nline {} of {last}", line.number));
        shown.event(json!({ "event": "line", "line": line.number, "of": last }));
        let made = match asked_now {
            Ok(args) => {
                let session = Session { shown, stop: &stop, opened: &opened, company: &all };
                make(args, &session, &mut None)
            }
            Err(message) => Err(Failure::input(message)),
        };
        ends.push(match made {
            Ok(output) => End::Made(output),
            Err(failure) => {
                let Failure { code, message, .. } = &failure;
                let event = json!({
                    "event": "line_failed", "line": line.number, "code": code, "message": message,
                });
                shown.event(event);
                shown.warn(&format!("line {}: {message}", line.number));
                End::Failed(failure)
            }
        });
    }
    summary(&lines, ends, shown)
}

/// Lines whose texts are encoded together, and wait in RAM: of the published models each takes up to
/// 7 MB.
const TEXTS_AT_ONCE: usize = 128;

/// Refuses lines whose videos would take the place of another line's.
fn refuse_same_outputs(lines: &[Line], asked: &mut [Result<GenerateArgs, String>]) {
    let mut taken = BTreeMap::new();
    for (line, asked) in lines.iter().zip(asked) {
        let Ok(args) = asked else { continue };
        let Some(output) = args.output.output.as_deref().map(absolute) else { continue };
        match taken.get(&output) {
            Some(number) => {
                *asked = Err(format!(
                    "line {number} goes to {} already; name another output",
                    output.display()
                ));
            }
            None => {
                taken.insert(output, line.number);
            }
        }
    }
}

/// What became of a line.
enum End {
    /// Its video is here.
    Made(PathBuf),
    Failed(Failure),
    NotBegun,
}

/// The arguments of a line: the batch's own, with what the line says.
fn asked(
    line: &Line,
    words: &[OsString],
    batch: &GenerateArgs,
    last: usize,
) -> Result<GenerateArgs, String> {
    let said = line.words.as_ref().map_err(String::clone)?;
    let args = defaults::try_parse(spelled(words, said)).map_err(|failure| failure.message)?;
    let Command::Generate(mut args) = args.command else {
        return Err("it asks for another command".into());
    };
    if args.output.output == batch.output.output
        && let Some(output) = &batch.output.output
    {
        args.output.output = Some(numbered(output, line.number, last));
    }
    Ok(*args)
}

/// The texts of all lines, by the folder of the model and the type.
#[derive(Default)]
struct AllTexts(BTreeMap<(PathBuf, String), Texts>);

impl AllTexts {
    /// Encodes the prompts of all lines, each model's at once. Lines whose prompts cannot be are left
    /// to themselves, and fail by themselves.
    fn encode(
        asked: &[Result<GenerateArgs, String>],
        opened: &Opened,
        stop: &AtomicBool,
        shown: Shown,
    ) -> AllTexts {
        let mut models: BTreeMap<(PathBuf, String), (Checkpoint, Target, Vec<Job>)> =
            BTreeMap::new();
        for args in asked.iter().flatten() {
            let Ok((checkpoint, target, job)) = job_of(args, opened) else { continue };
            let key = (folder(&checkpoint), job.dtype.to_string());
            let (_, least, jobs) =
                models.entry(key).or_insert_with(|| (checkpoint, target.clone(), Vec::new()));
            if target.budget_bytes() < least.budget_bytes() {
                *least = target;
            }
            jobs.push(job);
        }
        let mut all = AllTexts::default();
        for (key, (checkpoint, target, jobs)) in models {
            let jobs: Vec<&Job> = jobs.iter().collect();
            let device = &opened.device;
            let encoded = encode_texts(&checkpoint, &jobs, device, &target, stop, listener(shown));
            let (texts, passes) = match encoded {
                Ok(encoded) => encoded,
                Err(error) => {
                    shown.warn(&format!("each prompt is read by itself: {error}"));
                    continue;
                }
            };
            shown.say(&format!(
                "read {} prompts for {} videos of {}, in {passes} {} through the text encoder",
                texts.len(),
                jobs.len(),
                checkpoint.name(),
                if passes == 1 { "pass" } else { "passes" },
            ));
            shown.event(json!({
                "event": "texts", "prompts": texts.len(), "videos": jobs.len(),
                "passes": passes,
            }));
            all.0.insert(key, texts);
        }
        all
    }

    /// What a job goes on from, if its texts are there.
    fn state(&self, checkpoint: &Checkpoint, job: &Job) -> Option<RunState> {
        let texts = self.0.get(&(folder(checkpoint), job.dtype.to_string()))?;
        let embeds = job.prompts.iter().map(|prompt| texts.get(prompt));
        let embeds = embeds.collect::<Option<Vec<_>>>()?;
        Some(RunState::of_text(job, embeds.into_iter().flatten().copied().collect()))
    }
}

/// What the videos of a batch share.
struct Together {
    texts: AllTexts,
    warm: Option<Warm>,
}

impl Company for Together {
    fn state(&self, checkpoint: &Checkpoint, job: &Job) -> Option<RunState> {
        self.texts.state(checkpoint, job)
    }

    fn pipeline(
        &self,
        checkpoint: &Checkpoint,
        job: &Job,
    ) -> Result<Option<Rc<Pipeline>>, Failure> {
        let Some(warm) = &self.warm else { return Ok(None) };
        warm.unload_idle(Instant::now());
        warm.pipeline(checkpoint, job).map(Some)
    }
}

/// Says what became of each line.
fn summary(lines: &[Line], ends: Vec<End>, shown: Shown) -> Result<(), Failure> {
    let count = |is: fn(&End) -> bool| ends.iter().filter(|end| is(end)).count();
    let made = count(|end| matches!(end, End::Made(_)));
    let waiting = count(|end| matches!(end, End::NotBegun));
    shown.say(&format!("\n{made} of {} videos were made", lines.len()));
    let mut rows = Vec::new();
    for (line, end) in lines.iter().zip(&ends) {
        let (word, about) = match end {
            End::Made(output) => ("made", output.display().to_string()),
            End::Failed(failure) => ("failed", failure.message.clone()),
            End::NotBegun => ("not begun", String::new()),
        };
        let first = about.lines().next().unwrap_or_default();
        shown.say(&format!("  line {:<4} {word:<9} {first}", line.number));
        rows.push(json!({ "line": line.number, "outcome": word, "about": about }));
    }
    shown.event(json!({ "event": "summary", "made": made, "lines": rows }));
    let interrupted = ends.into_iter().find_map(|end| match end {
        End::Failed(failure) if failure.is_interruption() => Some(failure),
        _ => None,
    });
    match (interrupted, lines.len() - made) {
        (Some(failure), _) => Err(failure),
        (None, 0) => Ok(()),
        (None, failed) if waiting > 0 => Err(Failure {
            message: format!("interrupted; {failed} videos were not made"),
            ..Failure::interrupted()
        }),
        (None, failed) => {
            let all = lines.len();
            Err(Failure::other(format!("{failed} of {all} lines failed; each said why above")))
        }
    }
}
