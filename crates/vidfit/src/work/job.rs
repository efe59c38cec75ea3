//! One job: a command line that is run in this process, on the worker's device. Whatever goes wrong
//! with it, the next can be run.

use super::desk::Job;
use crate::args::{Command, GenerateArgs, MachineArgs, ResumeArgs};
use crate::defaults;
use crate::device::{Opened, open};
use crate::exit::Failure;
use crate::generate::{Company, Session, make_among_others};
use crate::progress::Shown;
use crate::resume::{self, OnDevice};
use crate::warm::Warm;
use serde_json::json;
use std::any::Any;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::pipelines::{Pipeline, WarmSettings};
use vidfit_engine::request;
use vidfit_engine::state::RunState;

/// Where jobs are done.
pub struct Bench<'a> {
    machine: &'a MachineArgs,
    settings: WarmSettings,
    /// The device, from the first job on.
    device: Option<Device>,
}

struct Device {
    opened: Opened,
    warm: Option<Warm>,
}

impl<'a> Bench<'a> {
    /// On the device of `machine`, which is opened when it is needed.
    pub fn new(machine: &'a MachineArgs, settings: WarmSettings) -> Bench<'a> {
        Bench { machine, settings, device: None }
    }

    /// Lets weights go that nobody has used for as long as the settings say, and says when to ask
    /// again, if any are left.
    pub fn unload_idle(&self, now: Instant) -> Option<Instant> {
        self.device.as_ref()?.warm.as_ref()?.unload_idle(now)
    }

    /// Runs a job. A panic is an error as others are. After one that is neither the job's nor the
    /// user's doing, the device is opened anew for the next job: it may be what failed.
    ///
    /// # Errors
    /// Why the command would have failed.
    pub fn run(&mut self, job: &Job) -> Result<(), Failure> {
        let result = guarded(|| self.run_unguarded(job)).unwrap_or_else(|panic| {
            let failure = Failure::other(format!("a fault of vidfit itself: {panic}"));
            Shown::Job(job.name).failed(&failure);
            Err(failure)
        });
        if result.as_ref().is_err_and(Failure::is_unforeseen) {
            let device = self.device.take();
            // Whatever state it is in.
            let _ = guarded(|| drop(device));
        }
        result
    }

    fn run_unguarded(&mut self, job: &Job) -> Result<(), Failure> {
        let (shown, machine) = (Shown::Job(job.name), self.machine);
        let read = read(&job.words).inspect_err(|failure| shown.failed(failure))?;
        let device = self.device(shown).map_err(Failure::of_the_machine);
        let device = device.inspect_err(|failure| shown.failed(failure))?;
        match read {
            Asked::Generate(mut args) => {
                args.machine = args.machine.on(machine);
                let (stop, opened) = (&job.stop, &device.opened);
                make_among_others(&args, &Session { shown, stop, opened, company: device })
            }
            Asked::Resume(args) => go_on(&args, shown, &job.stop, machine, device)
                .inspect_err(|failure| shown.failed(failure)),
        }
    }

    /// The device, which the first job opens.
    fn device(&mut self, shown: Shown) -> Result<&Device, Failure> {
        let device = match self.device.take() {
            Some(device) => device,
            None => {
                let mut opened = open(self.machine, shown)?;
                opened.announce(shown);
                let warm = Warm::on(&mut opened, self.settings);
                Device { opened, warm }
            }
        };
        Ok(self.device.insert(device))
    }
}

fn go_on(
    args: &ResumeArgs,
    shown: Shown,
    stop: &AtomicBool,
    machine: &MachineArgs,
    device: &Device,
) -> Result<(), Failure> {
    if let Some(output) = is_there_already(args) {
        shown.event(json!({ "event": "done", "run": null, "output": output }));
        return Ok(());
    }
    let on = OnDevice { opened: &device.opened, machine, company: device };
    resume::go_on(args, shown, stop, Some(&on))
}

/// The video of a run that was not to be kept, and is gone: another worker may have been done with it
/// when it was asked for.
fn is_there_already(args: &ResumeArgs) -> Option<&Path> {
    let output = args.output.as_deref().filter(|output| output.is_file())?;
    let is_gone = args.folder.runs().find(&args.run).is_err();
    is_gone.then_some(output)
}

/// What a job may ask for.
enum Asked {
    Generate(Box<GenerateArgs>),
    Resume(Box<ResumeArgs>),
}

/// Options that are the worker's to say.
const OF_THE_WORKER: [&str; 2] = ["--device", "--threads"];

/// Reads a command line, with the settings of this machine as defaults.
fn read(words: &[String]) -> Result<Asked, Failure> {
    let says = |option: &&str| {
        let of = |word: &String| word.split('=').next() == Some(option);
        words.iter().take_while(|word| *word != "--").any(of)
    };
    if let Some(option) = OF_THE_WORKER.iter().find(|option| says(option)) {
        return Err(Failure::input(format!("{option} is for the worker to say, not for a job")));
    }
    let words = ["vidfit"].into_iter().chain(words.iter().map(String::as_str));
    match defaults::try_parse(words.map(OsString::from))?.command {
        Command::Generate(args) if args.prompts.is_some() => {
            Err(Failure::input("a job is one video: --prompts cannot be one"))
        }
        Command::Generate(args) => Ok(Asked::Generate(args)),
        Command::Resume(args) => Ok(Asked::Resume(args)),
        _ => Err(Failure::input("a job is generate or resume, and no other command")),
    }
}

impl Company for Device {
    fn state(&self, _: &Checkpoint, _: &request::Job) -> Option<RunState> {
        None
    }

    fn pipeline(
        &self,
        checkpoint: &Checkpoint,
        job: &request::Job,
    ) -> Result<Option<Rc<Pipeline>>, Failure> {
        let Some(warm) = &self.warm else { return Ok(None) };
        warm.unload_idle(Instant::now());
        warm.pipeline(checkpoint, job).map(Some)
    }
}

/// What `work` comes to, or what it panicked with.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| in_words(&*panic))
}

fn in_words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    words.or_else(|| panic.downcast_ref().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_its_words() {
        assert_eq!(guarded(|| 3), Ok(3));
        assert_eq!(guarded(|| -> u8 { panic!("no") }), Err("no".to_owned()));
        let number = 7;
        assert_eq!(guarded(|| -> u8 { panic!("no {number}") }), Err("no 7".to_owned()));
    }

    #[test]
    fn a_job_is_one_video_on_the_workers_device() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            read(&words).map(drop).map_err(|failure| (failure.code, failure.message))
        };
        assert_eq!(read(&["generate", "--prompt=--device"]), Ok(()));
        assert_eq!(read(&["generate", "--", "--device"]), Ok(()));
        assert_eq!(read(&["resume", "last", "--runs=x"]), Ok(()));
        for (words, says) in [
            (&["generate", "x", "--device", "cpu"][..], "--device"),
            (&["resume", "last", "--threads=3"], "--threads"),
            (&["generate", "--prompts", "file"], "--prompts"),
            (&["doctor"], "generate or resume"),
            (&["generate", "x", "--frames", "many"], "many"),
            (&["generate", "--help"], ""),
            (&[], ""),
        ] {
            let (code, message) = read(words).unwrap_err();
            assert!(code == 2 && message.contains(says), "{words:?}: {message}");
        }
    }
}
