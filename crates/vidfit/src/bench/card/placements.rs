//! Whole jobs on the card, with the weights in all kinds of places.

use crate::bench::table::Table;
use crate::device::Opened;
use crate::exit::Failure;
use crate::human::{frames, size};
use serde::Serialize;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::digest::Digest;
use vidfit_engine::generate::{self, Generated, RunOptions};
use vidfit_engine::pixels::Pixels;
use vidfit_engine::planner::{Ask, Offload, Planned, Target};
use vidfit_engine::progress::{Listener, Progress};
use vidfit_engine::request::{Job, Request};
use vidfit_tensor::Device;

/// Where weights may be.
pub struct Placement {
    /// What the tables call it.
    pub name: String,
    /// How it is planned.
    pub offload: Offload,
    /// The most memory of the card that may be used, with the driver's share.
    pub limit_bytes: Option<u64>,
}

/// What came of a placement.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// The video was made.
    Made(Box<Made>),
    /// It does not fit, with the least that it would take.
    DoesNotFit(u64),
}

/// What a video took.
#[derive(Serialize)]
pub struct Made {
    /// What was to be reserved.
    pub planned_bytes: u64,
    /// Of that the arena.
    pub planned_arena_bytes: u64,
    /// The peak of the arena by its own books.
    pub arena_peak_bytes: u64,
    /// What the driver saw in use while the job ran, if the device has a driver that tells.
    pub driver: Option<InUse>,
    /// Whether it was decoded in tiles, which is another picture.
    pub is_tiled: bool,
    /// Each phase.
    pub phases: Vec<PhaseTook>,
    /// The median of the denoising steps but the first.
    pub step_seconds: f64,
    /// The time of a step by the plan.
    pub planned_step_seconds: f64,
    /// Multiplications and additions of a step.
    pub step_flops: f64,
    /// Bytes that a step brings to the card.
    pub step_uploaded_bytes: u64,
    /// Of all frames, to compare placements by.
    #[serde(skip)]
    pub digest: Digest,
}

/// Memory of the card that a job uses, by the driver's figure of what this process has taken; or of what is
/// free, where that is not told, and others may be in it.
#[derive(Clone, Copy, Serialize)]
pub struct InUse {
    /// At any time.
    pub most_bytes: u64,
    /// At any time.
    pub least_bytes: u64,
}

impl InUse {
    /// Whether it is what was planned, all the time; or what it is instead.
    pub fn check(&self, planned_bytes: u64) -> Result<(), String> {
        if self.most_bytes != self.least_bytes {
            return Err("the driver's free memory moves while the job runs".into());
        }
        let off = self.most_bytes.abs_diff(planned_bytes);
        if off > PAGE_BYTES.max((planned_bytes as f64 * MOST_OFF) as u64) {
            return Err(format!("the driver sees {off} bytes more or less in use"));
        }
        Ok(())
    }
}

/// More than the driver's figure may be off the plan: a part of it.
const MOST_OFF: f64 = 0.02;

/// The driver gives memory in pages of this.
const PAGE_BYTES: u64 = 2 << 20;

/// How often a video is made, where others on the card may be why its memory moves.
const MOST_TRIES: usize = 3;

/// A phase.
#[derive(Serialize)]
pub struct PhaseTook {
    /// Its name.
    pub name: String,
    /// Its time.
    pub seconds: f64,
    /// Its time by the plan.
    pub planned_seconds: f64,
    /// Its multiplications and additions.
    pub flops: f64,
    /// What it brought to the card.
    pub uploaded_bytes: u64,
}

/// Makes the video in a placement; again, if memory moves and it is not told whose.
///
/// # Errors
/// Whatever keeps it from being planned or made, but that it does not fit.
pub fn measure(
    placement: &Placement,
    checkpoint: &Checkpoint,
    request: &Request,
    opened: &Opened,
    target: &Target,
) -> Result<Measured, Failure> {
    let target = &Target { limit_bytes: placement.limit_bytes, ..target.clone() };
    let offload = placement.offload;
    let planned = match generate::prepare_for(&Ask { checkpoint, request, offload, target }) {
        Ok(planned) => planned,
        Err(EngineError::DoesNotFit { required_bytes, .. }) => {
            return Ok(Measured::DoesNotFit(required_bytes));
        }
        Err(error) => return Err(error.into()),
    };
    let mut tries = 0;
    loop {
        let made = make(checkpoint, &planned, &opened.device)?;
        tries += 1;
        let is_as_planned = made.driver.is_none_or(|used| used.check(made.planned_bytes).is_ok());
        let is_told = opened.device.taken_bytes().is_some();
        if is_as_planned || is_told || tries == MOST_TRIES {
            return Ok(Measured::Made(Box::new(made)));
        }
    }
}

fn make(
    checkpoint: &Checkpoint,
    planned: &Planned,
    device: &Arc<dyn Device>,
) -> Result<Made, Failure> {
    let watched = Arc::new(Mutex::new(Watched::default()));
    let before = Reading::of(&**device);
    let pixels = made_up(&planned.job)?;
    let options = RunOptions {
        stop: &AtomicBool::new(false),
        listener: listener(device.clone(), watched.clone()),
        keep_tensors: false,
        capacity_bytes: u64::MAX,
        poison: false,
        pixels: pixels.as_ref(),
        state: None,
        replan: false,
        keep: None,
    };
    let generated = generate::run(checkpoint, planned, device, options)?;
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = watched.in_use(before);
    Ok(told(planned, &generated, &watched.steps, driver))
}

fn told(
    planned: &Planned,
    generated: &Generated,
    steps: &[Instant],
    driver: Option<InUse>,
) -> Made {
    let plan = &planned.plan;
    let works = |name: &str| plan.phases.iter().find(|phase| phase.name == name);
    let phases = generated.phases.iter().map(|phase| PhaseTook {
        name: phase.name.to_owned(),
        seconds: phase.seconds,
        planned_seconds: works(phase.name).map_or(0.0, |work| work.seconds),
        flops: works(phase.name).map_or(0.0, |work| work.flops),
        uploaded_bytes: phase.uploaded_bytes,
    });
    let phases: Vec<PhaseTook> = phases.collect();
    let count = planned.job.steps.len();
    let denoise = phases.iter().find(|phase| phase.name == "denoise");
    let of_step = |value: f64| value / count as f64;
    let mut digest = Digest::default();
    generated.frames.iter().for_each(|frame| digest.add(frame));
    Made {
        planned_bytes: plan.device_bytes(),
        planned_arena_bytes: plan.layout.peak_bytes,
        arena_peak_bytes: generated.measured.peak_bytes,
        driver,
        is_tiled: planned.job.tiling.is_some(),
        step_seconds: median(steps),
        planned_step_seconds: denoise.map_or(0.0, |phase| of_step(phase.planned_seconds)),
        step_flops: denoise.map_or(0.0, |phase| of_step(phase.flops)),
        step_uploaded_bytes: denoise.map_or(0, |phase| phase.uploaded_bytes / count as u64),
        phases,
        digest,
    }
}

/// What the listener of a run sees.
#[derive(Default)]
struct Watched {
    /// When each step but the first was seen to be done.
    steps: Vec<Instant>,
    steps_done: usize,
    /// The driver's figures, while the job ran.
    readings: Vec<Reading>,
}

/// The driver's figures of the card's memory.
#[derive(Clone, Copy, Default)]
struct Reading {
    taken: Option<u64>,
    free: Option<u64>,
}

impl Reading {
    fn of(device: &dyn Device) -> Reading {
        Reading { taken: device.taken_bytes(), free: device.free_bytes() }
    }

    /// What was taken from `before` to this: by this process, where both tell that.
    fn taken_since(&self, before: Reading) -> Option<u64> {
        match (before.taken, self.taken) {
            (Some(before), Some(now)) => Some(now.saturating_sub(before)),
            _ => Some(before.free?.saturating_sub(self.free?)),
        }
    }
}

impl Watched {
    fn in_use(&self, before: Reading) -> Option<InUse> {
        let taken: Option<Vec<u64>> =
            self.readings.iter().map(|reading| reading.taken_since(before)).collect();
        let taken = taken?;
        Some(InUse { most_bytes: *taken.iter().max()?, least_bytes: *taken.iter().min()? })
    }
}

fn listener(device: Arc<dyn Device>, watched: Arc<Mutex<Watched>>) -> Listener {
    Box::new(move |news| {
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.readings.push(Reading::of(&*device));
        if let Progress::Advanced { phase: "denoise", steps_done, .. } = news
            && steps_done > watched.steps_done
        {
            watched.steps_done = steps_done;
            watched.steps.push(Instant::now());
        }
    })
}

/// The median time between these moments.
fn median(moments: &[Instant]) -> f64 {
    let mut laps: Vec<f64> =
        moments.windows(2).map(|two| two[1].duration_since(two[0]).as_secs_f64()).collect();
    laps.sort_by(f64::total_cmp);
    laps.get(laps.len() / 2).copied().unwrap_or(0.0)
}

/// Something to start from, for models that need it.
fn made_up(job: &Job) -> Result<Option<Pixels>, Failure> {
    if job.given_frames == 0 {
        return Ok(None);
    }
    let values = job.height * job.width * 3;
    let frame: Arc<[u8]> = (0..values).map(|n| (n * n / 7 % 253) as u8).collect();
    Ok(Some(Pixels::new(job.height, job.width, vec![frame; job.given_frames])?))
}

/// What a placement took, in a line.
pub fn in_words(placement: &Placement, measured: &Measured) -> String {
    let name = &placement.name;
    match measured {
        Measured::Made(made) => {
            let seconds: f64 = made.phases.iter().map(|phase| phase.seconds).sum();
            format!(
                "{name}: a step takes {:.3} s, the video {:.1} s, in {}",
                made.step_seconds,
                seconds,
                size(made.planned_bytes)
            )
        }
        Measured::DoesNotFit(least) => format!("{name}: does not fit, it needs {}", size(*least)),
    }
}

/// What all of them took, side by side.
pub fn table(job: &Job, measured: &[(Placement, Measured)]) -> Table {
    let in_use = |made: &Made| match &made.driver {
        Some(used) => size(used.most_bytes),
        None => "unknown".into(),
    };
    let phase = |made: &Made, name: &str| {
        let found = made.phases.iter().find(|phase| phase.name == name);
        found.map_or_else(|| "-".into(), |phase| format!("{:.2} s", phase.seconds))
    };
    let resident = measured.iter().find_map(|(_, row)| match row {
        Measured::Made(made) => Some(made.step_seconds),
        Measured::DoesNotFit(_) => None,
    });
    let rows = measured.iter().map(|(placement, row)| match row {
        Measured::Made(made) => vec![
            placement.name.clone() + if made.is_tiled { ", in tiles" } else { "" },
            size(made.planned_bytes),
            in_use(made),
            format!("{:.3} s", made.step_seconds),
            format!("{:.2}", made.step_seconds / resident.unwrap_or(made.step_seconds)),
            format!("{:.3} s", made.planned_step_seconds),
            format!("{:.1}", made.step_flops / made.step_seconds.max(1e-9) / 1e12),
            format!("{:.1}", made.step_uploaded_bytes as f64 / made.step_seconds.max(1e-9) / 1e9),
            phase(made, "text"),
            phase(made, "decode"),
        ],
        Measured::DoesNotFit(least) => {
            let mut cells = vec![placement.name.clone(), format!("needs {}", size(*least))];
            cells.resize(10, "-".into());
            cells
        }
    });
    Table {
        title: format!(
            "{} of {}×{}, {} in {}",
            frames(job.frames),
            job.width,
            job.height,
            if job.steps.len() == 1 { "1 step".into() } else { format!("{} steps", job.steps.len()) },
            job.dtype
        ),
        note: "In use is what the driver says of the reservation while the job runs; a step is the \
               median of all but the first, beside that of the first placement; its arithmetic is in \
               TFLOP/s and what it brings to the card in GB/s. Text and decode are one run each, with what \
               they bring."
            .into(),
        columns: vec![
            "weights", "planned", "in use", "a step", "ratio", "predicted", "TFLOP/s", "GB/s", "text", "decode",
        ],
        words: 1,
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_take_is_not_the_jobs() {
        let reading = |taken, free| Reading { taken, free: Some(free) };
        let seen = |readings: &[Reading]| {
            let watched = Watched { readings: readings.to_vec(), ..Watched::default() };
            watched.in_use(reading(Some(100), 900)).map(|used| (used.least_bytes, used.most_bytes))
        };
        // Another takes 300, then gives back all that it had.
        let told = [reading(Some(150), 550), reading(Some(150), 990)];
        assert_eq!(seen(&told), Some((50, 50)));
        // What the job takes beside is seen.
        assert_eq!(seen(&[told[0], reading(Some(160), 840)]), Some((50, 60)));
        // Where it is not told whose it is, it may be anybody's, but never less than nothing.
        assert_eq!(seen(&[reading(None, 550), reading(None, 990)]), Some((0, 350)));
        assert_eq!(seen(&[]), None);
        let used = |least_bytes, most_bytes| InUse { least_bytes, most_bytes };
        assert_eq!(used(50, 50).check(50), Ok(()));
        assert!(used(50, 60).check(50).unwrap_err().contains("moves"));
        assert!(used(5 << 20, 5 << 20).check(1 << 20).unwrap_err().contains("more or less"));
    }
}
