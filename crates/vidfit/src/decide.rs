//! From what is wanted to a job that fits: as it was asked for, with the frames that fit, or changed
//! as far as the user allows; and if nothing does, what would.

use crate::args::{FitArgs, JobArgs, MachineArgs};
use crate::demo;
use crate::device::{beside_results, dtype};
use crate::exit::Failure;
use crate::human::{frames, seconds, size};
use crate::model::{Model, published, smaller_than};
use crate::say::note;
use std::io::IsTerminal;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::planner::{
    Alternative, Ask, Offload, PlanReport, Planned, Refused, Step, Target, fit, nearest, plan_least,
};
use vidfit_engine::request::{Job, Request, TilingChoice, tiles};

/// What is wanted, of which models, on what.
pub struct Wanted {
    /// The model that is asked for, and those that may take its place.
    pub models: Vec<Model>,
    /// What to make.
    pub request: Request,
    /// Whether the number of frames is left to what fits.
    pub fits_frames: bool,
    /// What may change, in this order.
    pub order: Vec<Step>,
    /// Where weights may be.
    pub offload: Offload,
    /// On what.
    pub target: Target,
}

/// A job that does not fit.
pub struct NoRoom {
    /// The least that it would take.
    pub report: PlanReport,
    /// What is the matter, and what would fit.
    pub message: String,
}

/// A job that needs more than so many times what there is has no neighbours that fit, and planning
/// those takes long.
const NEAR: u64 = 32;

impl Wanted {
    /// What the arguments ask for, on `target`. `open` finds models: to run, or to plan with.
    ///
    /// # Errors
    /// Bad input if a model is not there, or cannot make that on any device.
    pub fn new(
        job: &JobArgs,
        machine: &MachineArgs,
        change: Option<&FitArgs>,
        target: Target,
        keeps_tensors: bool,
        open: impl Fn(&str) -> Result<Model, Failure>,
    ) -> Result<Wanted, Failure> {
        let mut models = vec![open(job.model.as_deref().unwrap_or(demo::NAME))?];
        let checkpoint = &models[0].checkpoint;
        let start = job.input.start_of_plan(checkpoint.variant);
        let request = job.request(dtype(machine.dtype, checkpoint, &target));
        let request = Request { start, ..request };
        let largest = largest(checkpoint, &request, job.fits_frames())?;
        let target = beside_results(target, checkpoint, &largest, keeps_tensors);
        let order = change.map(|change| change.order(request.tiling)).unwrap_or_default();
        if let Some(name) = change.and_then(|change| change.fallback_model.as_ref()) {
            models.push(open(name)?);
        } else if order.contains(&Step::Model) {
            // Those that are here are as good as named.
            let smaller = smaller_than(checkpoint);
            models.extend(smaller.iter().filter_map(|variant| open(&variant.id()).ok()));
        }
        let (fits_frames, offload) = (job.fits_frames(), machine.offload);
        Ok(Wanted { models, request, fits_frames, order, offload, target })
    }

    /// The model that is asked for.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.models[0].checkpoint
    }

    /// What the engine is asked.
    pub fn ask(&self) -> Ask<'_> {
        Ask {
            checkpoint: self.checkpoint(),
            request: &self.request,
            offload: self.offload,
            target: &self.target,
        }
    }

    /// Finds a job that fits, as far as that is allowed.
    ///
    /// # Errors
    /// Bad input if the model cannot make that on any device.
    pub fn decide(&self) -> Result<Result<Alternative, Refused>, Failure> {
        let ask = self.ask();
        let unchanged =
            |request, planned| Alternative { what: String::new(), request, model: 0, planned };
        if self.fits_frames {
            // A video to start from has no more than so many.
            let most = self.request.frames.unwrap_or(ask.checkpoint.most_frames());
            if let Some((request, planned)) = ask.most_frames(most)? {
                return Ok(Ok(unchanged(request, planned)));
            }
        }
        let refused = match ask.plan()? {
            Ok(planned) => return Ok(Ok(unchanged(self.request.clone(), planned))),
            Err(refused) => refused,
        };
        if self.order.is_empty() {
            return Ok(Err(refused));
        }
        let models: Vec<&Checkpoint> = self.models.iter().map(|model| &model.checkpoint).collect();
        Ok(fit(ask, &self.order, &models)?.ok_or(refused))
    }

    /// What to say of a job that does not fit: its numbers, and the nearest that would, with
    /// theirs. Models that are not on this machine are offered as well.
    ///
    /// # Errors
    /// As [`Wanted::decide`].
    pub fn no_room(&self, refused: &Refused) -> Result<NoRoom, Failure> {
        let checkpoint = self.checkpoint();
        let report = PlanReport::of_refused(checkpoint, refused);
        let smaller: Vec<Model> = smaller_than(checkpoint).into_iter().map(published).collect();
        let offered: Vec<&Model> = self.models[..1].iter().chain(&smaller).collect();
        let models: Vec<&Checkpoint> = offered.iter().map(|model| &model.checkpoint).collect();
        if std::io::stderr().is_terminal() {
            note!("it does not fit; looking for what would");
        }
        let is_near = report.peak_bytes / NEAR <= report.budget_bytes;
        let others = if is_near { nearest(self.ask(), &models)? } else { Vec::new() };
        let mut lines = vec![needs(&report)];
        match &others[..] {
            [] => lines.push("Nothing near it fits either.".into()),
            others => {
                lines.push("These would fit:".into());
                lines.extend(others.iter().map(|other| self.offer(other, &offered)));
            }
        }
        if self.order.is_empty() && !others.is_empty() {
            lines.push("With --fit, vidfit changes the job by itself until it fits.".into());
        }
        Ok(NoRoom { report, message: lines.join("\n") })
    }

    /// A job that would fit, its numbers, and how to ask for it.
    fn offer(&self, other: &Alternative, models: &[&Model]) -> String {
        let asked = &self.request;
        let mut flags = Vec::new();
        if other.model > 0 {
            flags.push(format!("--model {}", models[other.model].spelled));
        }
        if other.request.frames != asked.frames {
            flags.extend(other.request.frames.map(|frames| format!("--frames {frames}")));
        }
        if other.request.height != asked.height || other.request.width != asked.width {
            flags.extend(other.request.height.map(|height| format!("--height {height}")));
            flags.extend(other.request.width.map(|width| format!("--width {width}")));
        }
        if other.request.tiling != asked.tiling && other.request.tiling == TilingChoice::Auto {
            flags.push("--vae-tiling auto".into());
        }
        let planned = &other.planned;
        let is_tiled = planned.job.tiling.is_some() || planned.job.encode_tiling.is_some();
        let says_so = !is_tiled || other.what.contains("tiles");
        let tiles = if says_so { "" } else { ", in tiles" };
        format!(
            "  {}{tiles}: {} of memory, {}    {}",
            other.what,
            size(planned.plan.device_bytes()),
            seconds(planned.plan.seconds()),
            flags.join(" ")
        )
    }
}

/// The plan for as little memory as the job takes in the reference's tiles, if those are allowed.
///
/// # Errors
/// As [`Wanted::decide`].
pub fn least(ask: &Ask<'_>) -> Result<Planned, EngineError> {
    let Ask { checkpoint, request, offload, target } = *ask;
    let (job, _) = Job::new(checkpoint, request)?;
    let job = match request.tiling {
        TilingChoice::Off => job,
        TilingChoice::On | TilingChoice::Auto => job.with_tiles(tiles(checkpoint, request)?),
    };
    plan_least(checkpoint, &job, offload, target)
}

/// The job with the most results that may come of a request: of all the frames that are looked for,
/// if their number is left to what fits.
fn largest(
    checkpoint: &Checkpoint,
    request: &Request,
    fits_frames: bool,
) -> Result<Job, EngineError> {
    if fits_frames {
        let request = Request { frames: Some(checkpoint.most_frames()), ..request.clone() };
        // A model may have no positions for so many at this size; then they are not tried either.
        if let Ok((job, _)) = Job::new(checkpoint, &request) {
            return Ok(job);
        }
    }
    Job::new(checkpoint, request).map(|(job, _)| job)
}

/// What a job that does not fit needs, and what there is.
pub fn needs(report: &PlanReport) -> String {
    let video = &report.video;
    let tiles = match video.tile {
        Some((height, width)) => format!(", even in tiles of {width}×{height} pixels"),
        None => String::new(),
    };
    format!(
        "{} at {} of {}×{} needs at least {} of memory{tiles}; {} may be used on {} ({})",
        report.model,
        frames(video.frames),
        video.width,
        video.height,
        size(report.peak_bytes),
        size(report.budget_bytes),
        report.device,
        budget(report),
    )
}

/// Where the budget comes from: what is free, what is allowed, what the driver takes.
pub fn budget(report: &PlanReport) -> String {
    let mut words = match report.limit_bytes {
        Some(limit) => format!("{} allowed of {} free", size(limit), size(report.free_bytes)),
        None => format!("{} free", size(report.free_bytes)),
    };
    let allowed =
        report.limit_bytes.map_or(report.free_bytes, |limit| limit.min(report.free_bytes));
    let left = allowed.saturating_sub(report.overhead_bytes).saturating_sub(report.budget_bytes);
    if left > 0 && report.limit_bytes.is_none() {
        words += &format!(", {} left to others", size(left));
    }
    if report.overhead_bytes > 0 {
        words += &format!(", {} taken by the driver", size(report.overhead_bytes));
    }
    words
}
