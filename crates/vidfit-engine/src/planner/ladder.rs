//! What would fit instead: the ladder of changes that a user may allow, and the nearest ones that
//! are offered when nothing was allowed.

use super::decide::{Refused, first_that_fits, may_fit, plan};
use super::planned::Planned;
use super::target::{Offload, Target};
use super::ways::Ways;
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::request::{FrameCounts, Job, Request, TilingChoice, Warnings, tiles};
use serde::{Deserialize, Serialize};

/// A kind of change to the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Decode in tiles.
    Tiling,
    /// Fewer frames.
    Frames,
    /// Fewer pixels.
    Size,
    /// A smaller model.
    Model,
}

impl Step {
    /// The order that is taken where the user names none: what changes the picture least comes
    /// first.
    pub const ORDER: [Step; 4] = [Step::Tiling, Step::Frames, Step::Size, Step::Model];
}

impl std::str::FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Step, String> {
        match text {
            "tiling" => Ok(Step::Tiling),
            "frames" => Ok(Step::Frames),
            "size" => Ok(Step::Size),
            "model" => Ok(Step::Model),
            _ => Err(format!("{text:?} is none of tiling, frames, size, model")),
        }
    }
}

/// What is asked for, of which model, on what.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// What to make.
    pub request: &'a Request,
    /// Where weights may be.
    pub offload: Offload,
    /// On what.
    pub target: &'a Target,
}

/// A job that fits: what was asked for, or another in its place.
pub struct Alternative {
    /// What differs from what was asked for, in words; empty if nothing does.
    pub what: String,
    /// What to ask for to get it.
    pub request: Request,
    /// Which of the models that were offered it takes: 0 is the one asked for.
    pub model: usize,
    /// Its plan.
    pub planned: Planned,
}

impl Ask<'_> {
    /// Plans it.
    ///
    /// # Errors
    /// [`EngineError::Request`] if the model cannot make it, on any device.
    pub fn plan(&self) -> Result<Result<Planned, Refused>, EngineError> {
        let (job, warnings) = Job::new(self.checkpoint, self.request)?;
        let tiling = (self.request.tiling, tiles(self.checkpoint, self.request)?);
        let answer = plan(self.checkpoint, &job, tiling, self.offload, self.target)?;
        Ok(answer.map(|planned| Planned { warnings, ..planned }))
    }

    /// Plans another request in its place, if that fits.
    fn instead(&self, request: &Request) -> Result<Option<Planned>, EngineError> {
        // What a model has no positions for is no alternative, nor what RAM is too small for.
        let Ok((ways, warnings)) = self.ways(request) else { return Ok(None) };
        match first_that_fits(self.checkpoint, &ways, self.offload, self.target) {
            Err(
                EngineError::Request(_)
                | EngineError::NotEnoughRam { .. }
                | EngineError::DoesNotFit { .. },
            ) => Ok(None),
            other => Ok(other?.map(|planned| Planned { warnings, ..planned })),
        }
    }

    /// Whether some schedule of another request may fit.
    fn may_fit(&self, request: &Request) -> Result<bool, EngineError> {
        let Ok((ways, _)) = self.ways(request) else { return Ok(false) };
        may_fit(self.checkpoint, &ways, self.offload, self.target)
    }

    /// The jobs that another request allows, and what the user should know of it.
    fn ways(&self, request: &Request) -> Result<(Ways, Warnings), EngineError> {
        let (job, warnings) = Job::new(self.checkpoint, request)?;
        let tiles = tiles(self.checkpoint, request)?;
        Ok((Ways::new(self.checkpoint, &job, request.tiling, tiles), warnings))
    }

    /// The most frames that fit, in the model's own step, and their plan; a single one at least.
    ///
    /// # Errors
    /// As [`Ask::plan`].
    pub fn most_frames(&self, most: usize) -> Result<Option<(Request, Planned)>, EngineError> {
        let counts = FrameCounts::of(self.checkpoint, self.request.start);
        let with =
            |index: usize| Request { frames: Some(counts.nth(index)), ..self.request.clone() };
        // The largest count that may fit: memory grows with the frames. The least, of index 0, is
        // tried whatever its phases seem to take.
        let (mut low, mut over) = (0, most.saturating_sub(counts.first) / counts.step + 1);
        while low + 1 < over {
            let middle = low.midpoint(over);
            if self.may_fit(&with(middle))? {
                low = middle;
            } else {
                over = middle;
            }
        }
        for count in (0..=low).rev() {
            if let Some(planned) = self.instead(&with(count))? {
                return Ok(Some((with(count), planned)));
            }
        }
        Ok(None)
    }
}

/// Sizes to fall back to, as shares of the one asked for.
const SHARES: [(usize, usize); 4] = [(3, 4), (2, 3), (1, 2), (1, 3)];

/// The first change of these kinds, in this order, with which the job fits; each by itself first,
/// then on top of those before it. `models` are the one asked for and smaller ones.
///
/// # Errors
/// As [`Ask::plan`].
pub fn fit(
    ask: Ask<'_>,
    order: &[Step],
    models: &[&Checkpoint],
) -> Result<Option<Alternative>, EngineError> {
    for is_cumulative in [false, true] {
        let mut base = ask.request.clone();
        for step in order {
            let from = Ask { request: &base, ..ask };
            if let Some(mut other) = changes(from, *step, models)? {
                other.what = differences(ask, &other, models);
                other.planned.changes_picture.push(other.what.clone());
                return Ok(Some(other));
            }
            if is_cumulative {
                base = smallest(from, *step);
            }
        }
    }
    Ok(None)
}

/// In what an alternative differs from what was asked for, in words.
fn differences(ask: Ask<'_>, other: &Alternative, models: &[&Checkpoint]) -> String {
    let mut words = Vec::new();
    let job = &other.planned.job;
    if other.model > 0 {
        words.push(models[other.model].name().to_owned());
    }
    if let Ok((asked, _)) = Job::new(ask.checkpoint, ask.request) {
        if asked.frames != job.frames {
            words.push(format!("{} frames", job.frames));
        }
        if (asked.height, asked.width) != (job.height, job.width) {
            words.push(format!("{}×{} pixels", job.width, job.height));
        }
    }
    let is_tiled = job.tiling.is_some() || job.encode_tiling.is_some();
    if is_tiled && ask.request.tiling == TilingChoice::Off {
        words.push("tiles".into());
    }
    words.join(", ")
}

/// The three nearest jobs that fit, each with one change.
///
/// # Errors
/// As [`Ask::plan`].
pub fn nearest(ask: Ask<'_>, models: &[&Checkpoint]) -> Result<Vec<Alternative>, EngineError> {
    let mut found = Vec::new();
    for step in Step::ORDER {
        found.extend(changes(ask, step, models)?);
    }
    if found.is_empty() {
        // No single change suffices: the ladder to its end.
        found.extend(fit(ask, &Step::ORDER, models)?);
    }
    found.truncate(3);
    Ok(found)
}

/// The mildest change of one kind with which the job fits, if there is one.
fn changes(
    ask: Ask<'_>,
    step: Step,
    models: &[&Checkpoint],
) -> Result<Option<Alternative>, EngineError> {
    let alternative =
        |what: String, request, planned| Some(Alternative { what, request, model: 0, planned });
    match step {
        Step::Tiling if ask.request.tiling == TilingChoice::Off => {
            let request = Request { tiling: TilingChoice::Auto, ..ask.request.clone() };
            let planned = ask.instead(&request)?;
            Ok(planned
                .and_then(|planned| alternative("decoding in tiles".into(), request, planned)))
        }
        Step::Tiling => Ok(None),
        Step::Frames => {
            let (job, _) = Job::new(ask.checkpoint, ask.request)?;
            let fewer = ask.most_frames(job.asked_frames().saturating_sub(1).max(1))?;
            // A single frame is no video.
            let fewer = fewer.filter(|(_, planned)| planned.job.frames > 1);
            Ok(fewer.and_then(|(request, planned)| {
                alternative(format!("{} frames", planned.job.frames), request, planned)
            }))
        }
        Step::Size => {
            for share in SHARES {
                let Some(request) = shrunk(ask, share) else { continue };
                if ask.may_fit(&request)?
                    && let Some(planned) = ask.instead(&request)?
                {
                    let what = format!("{}×{} pixels", planned.job.width, planned.job.height);
                    return Ok(alternative(what, request, planned));
                }
            }
            Ok(None)
        }
        Step::Model => {
            for (model, checkpoint) in models.iter().enumerate().skip(1) {
                let other = Ask { checkpoint, ..ask };
                let request = fitted(ask, checkpoint);
                if let Some(planned) = other.instead(&request)? {
                    let what = checkpoint.name().to_owned();
                    return Ok(Some(Alternative { what, request, model, planned }));
                }
            }
            Ok(None)
        }
    }
}

/// The request at the end of one kind of change.
fn smallest(ask: Ask<'_>, step: Step) -> Request {
    match step {
        Step::Tiling => Request { tiling: TilingChoice::Auto, ..ask.request.clone() },
        Step::Frames => {
            let counts = FrameCounts::of(ask.checkpoint, ask.request.start);
            Request { frames: Some(counts.nth(1)), ..ask.request.clone() }
        }
        Step::Size => shrunk(ask, SHARES[SHARES.len() - 1]).unwrap_or(ask.request.clone()),
        Step::Model => ask.request.clone(),
    }
}

/// The request with this share of its height and width.
fn shrunk(ask: Ask<'_>, (num, den): (usize, usize)) -> Option<Request> {
    let (job, _) = Job::new(ask.checkpoint, ask.request).ok()?;
    let unit = ask.checkpoint.size_unit();
    let shorter = |pixels: usize| (pixels * num / den / unit * unit).max(unit);
    let (height, width) = (Some(shorter(job.height)), Some(shorter(job.width)));
    Some(Request { height, width, ..ask.request.clone() })
}

/// The request for another model: of its own size and length where it was the first one's own, and
/// of no more frames than it was made for.
fn fitted(ask: Ask<'_>, other: &Checkpoint) -> Request {
    let mut request = ask.request.clone();
    let most = other.most_frames();
    let counts = FrameCounts::of(other, request.start);
    request.frames = request.frames.map(|frames| counts.at_most(frames.min(most)));
    // bf16 is what all but the 2b were made for, and f16 what the 2b was.
    if request.dtype == ask.checkpoint.variant.published_dtype() {
        request.dtype = other.variant.published_dtype();
    }
    request
}
