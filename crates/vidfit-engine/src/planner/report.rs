//! The plan as people and programs read it: one schema for `plan --json`, saved plans, reports of
//! runs, and whoever else asks.

use super::decide::{Refused, Rejected};
use super::planned::Planned;
use super::target::{Certainty, Offload, STAGING_BYTES};
use crate::checkpoint::Checkpoint;
use crate::host_memory::result_bytes;
use crate::placement::{self, Adapted, LAID_OUT_AT_ONCE, Part};
use crate::plan::PhaseWork;
use crate::request::Job;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vidfit_cogvideox::weights::Form;

/// The version of the schema: it changes when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// What a job will take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// [`SCHEMA_VERSION`].
    pub version: u32,
    /// The model.
    pub model: String,
    /// The device.
    pub device: String,
    /// Frames, height and width of the video, and steps.
    pub video: Video,
    /// Whether it fits the budget, and what it holds on the host the RAM.
    pub fits: bool,
    /// Device memory that is reserved: the arena and the operations' scratch.
    pub peak_bytes: u64,
    /// Device memory that weights take besides that were there before the job and stay.
    #[serde(default)]
    pub warm_bytes: u64,
    /// Device memory that may be reserved: what is free or allowed, without the overhead and the
    /// warm weights.
    pub budget_bytes: u64,
    /// Device memory that is free, or that the card has.
    pub free_bytes: u64,
    /// What the user allows, if he says.
    pub limit_bytes: Option<u64>,
    /// Device memory outside of the reservation: driver, context, modules.
    pub overhead_bytes: u64,
    /// Host memory that the job holds.
    pub ram_peak_bytes: u64,
    /// Host memory that may be used, where that is known.
    pub ram_bytes: Option<u64>,
    /// Bytes of the largest component's files, which are read from the memory map: page cache,
    /// which may go and come back from the disk.
    pub mapped_bytes: u64,
    /// Whether RAM is known to be too small for that cache, so that streamed weights come from the
    /// disk in every step and the times are too short.
    pub streams_from_disk: bool,
    /// The time of all phases.
    pub seconds: f64,
    /// How much that is to be believed.
    pub certainty: Certainty,
    /// Where the transformer's weights are.
    pub placement: Placement,
    /// What of the plan changes the picture, in words.
    pub changes_picture: Vec<String>,
    /// What was not taken, and why.
    pub rejected: Vec<Rejected>,
    /// The phases, in order.
    pub phases: Vec<PhaseReport>,
}

/// What is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// Frames.
    pub frames: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// Denoising steps.
    pub steps: usize,
    /// The type of the arithmetic's operands.
    pub dtype: String,
    /// Height and width of a tile, where the video is decoded in tiles.
    pub tile: Option<(usize, usize)>,
    /// Height and width of a tile, where what it starts from is encoded in tiles.
    #[serde(default)]
    pub encode_tile: Option<(usize, usize)>,
}

/// Where the transformer's weights are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// `none`, `model`, `sequential`, `streamed` or `in place`.
    pub strategy: String,
    /// The share of the bytes that stay, in percent.
    pub resident_percent: f64,
    /// Slots that the others come through.
    pub slots: usize,
    /// Groups of heads that attention is computed in.
    pub head_groups: usize,
    /// Convolutions of the decoder whose caches wait in host memory.
    pub paged_caches: usize,
    /// Those of the encoder.
    #[serde(default)]
    pub paged_encoder_caches: usize,
}

/// What a phase takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// `text`, `encode`, `denoise` or `decode`.
    pub name: String,
    /// Device memory at its fullest, scratch included: as far up as tensors lie.
    pub peak_bytes: u64,
    /// The most that is alive at once, scratch included: what the phase needs, were it alone.
    pub live_bytes: u64,
    /// Its time.
    pub seconds: f64,
    /// Of that, the time that the arithmetic waits for copies.
    pub waiting_seconds: f64,
    /// Bytes copied to the device.
    pub uploaded_bytes: u64,
    /// Bytes copied from the device.
    pub downloaded_bytes: u64,
    /// Bytes of weights that stay on the device for the phase.
    pub resident_bytes: u64,
    /// Bytes of weights that are streamed in each pass.
    pub streamed_bytes: u64,
    /// Who holds most when the phase is fullest.
    pub peak_holder: String,
    /// Everybody who holds something then, the largest first: together `live_bytes`.
    pub holders: Vec<Holder>,
}

/// Tensors of one kind at a phase's fullest moment: their labels differ in numbers alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// What one of them is.
    pub label: String,
    /// How many there are.
    pub count: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl PlanReport {
    /// The report of a job that fits.
    pub fn of(checkpoint: &Checkpoint, planned: &Planned) -> PlanReport {
        let Planned { job, schedule, plan, target, offload, .. } = planned;
        let peak_bytes = plan.device_bytes();
        let denoise = weights_of(checkpoint, planned, "denoise");
        let all = denoise.0 + denoise.1;
        let resident_percent = if all == 0 { 100.0 } else { 100.0 * denoise.0 as f64 / all as f64 };
        let ram_peak = ram_peak_bytes(checkpoint, planned);
        let strategy = match offload {
            _ if target.profile.reads_host_memory => "in place",
            Offload::None => "none",
            Offload::Sequential => "sequential",
            _ if denoise.1 == 0 => "model",
            _ if denoise.0 == 0 => "sequential",
            _ => "streamed",
        };
        PlanReport {
            version: SCHEMA_VERSION,
            model: checkpoint.name().to_owned(),
            device: target.name.clone(),
            video: Video {
                frames: job.frames,
                height: job.height,
                width: job.width,
                steps: job.steps.len(),
                dtype: job.dtype.to_string(),
                tile: job.tiling.map(|tiling| (tiling.height, tiling.width)),
                encode_tile: job.encode_tiling.map(|tiling| (tiling.height, tiling.width)),
            },
            fits: target.reserved_bytes(&plan.layout, plan.scratch_bytes) <= target.budget_bytes()
                && (target.shares_ram || target.ram_bytes.is_none_or(|ram| ram_peak <= ram)),
            peak_bytes,
            warm_bytes: target.warm_bytes,
            budget_bytes: target.budget_bytes(),
            free_bytes: target.free_bytes,
            limit_bytes: target.limit_bytes,
            overhead_bytes: target.overhead_bytes,
            ram_peak_bytes: ram_peak,
            ram_bytes: target.ram_bytes,
            mapped_bytes: mapped_bytes(checkpoint),
            streams_from_disk: target.ram_bytes.is_some_and(|ram| {
                let left = ram.saturating_sub(ram_peak);
                (denoise.1 > 0 || target.shares_ram)
                    && checkpoint.transformer.weights.all_bytes() > left
            }),
            seconds: plan.seconds(),
            certainty: target.certainty,
            placement: Placement {
                strategy: strategy.to_owned(),
                resident_percent,
                slots: if denoise.1 == 0 { 0 } else { schedule.denoise.slots },
                head_groups: schedule.transformer.head_groups,
                paged_caches: schedule.decoder.paged_caches,
                paged_encoder_caches: match job.given_frames {
                    0 => 0,
                    _ => schedule.encoder.paged_caches,
                },
            },
            changes_picture: planned.changes_picture.clone(),
            rejected: planned.rejected.clone(),
            phases: phases(checkpoint, planned),
        }
    }

    /// The report of a job that does not fit: of the least that it would take.
    pub fn of_refused(checkpoint: &Checkpoint, refused: &Refused) -> PlanReport {
        PlanReport { fits: false, ..PlanReport::of(checkpoint, &refused.least) }
    }

    /// The phase called `name`.
    pub fn phase(&self, name: &str) -> Option<&PhaseReport> {
        self.phases.iter().find(|phase| phase.name == name)
    }
}

/// How tiles change the picture of a job, in words.
pub(super) fn changes_picture(job: &Job) -> Vec<String> {
    let tiles = [("encoded", job.encode_tiling), ("decoded", job.tiling)];
    let told = tiles.into_iter().filter_map(|(how, tiling)| {
        tiling.map(|tiling| format!("{how} in tiles of {}×{} pixels", tiling.width, tiling.height))
    });
    told.collect()
}

fn phases(checkpoint: &Checkpoint, planned: &Planned) -> Vec<PhaseReport> {
    let layout = &planned.plan.layout;
    let of = |work: &PhaseWork| {
        let peak = layout.phases.iter().find(|phase| phase.name == work.name);
        let (resident_bytes, streamed_bytes) = weights_of(checkpoint, planned, &work.name);
        let tensors = peak.map_or(&[][..], |peak| &peak.holders);
        let holders = holders(tensors, planned.plan.scratch_bytes);
        PhaseReport {
            name: work.name.clone(),
            peak_bytes: peak.map_or(0, |peak| peak.peak_bytes) + planned.plan.scratch_bytes,
            live_bytes: peak.map_or(0, |peak| peak.live_bytes) + planned.plan.scratch_bytes,
            seconds: work.seconds,
            waiting_seconds: work.waiting_seconds,
            uploaded_bytes: work.uploaded_bytes,
            downloaded_bytes: work.downloaded_bytes,
            resident_bytes,
            streamed_bytes,
            peak_holder: holders.first().map_or(String::new(), |holder| holder.label.clone()),
            holders,
        }
    };
    planned.plan.phases.iter().map(of).collect()
}

/// Tensors by their kinds, and the operations' scratch, the largest first.
fn holders(tensors: &[vidfit_tensor::Request], scratch_bytes: u64) -> Vec<Holder> {
    let mut kinds: BTreeMap<String, Holder> = BTreeMap::new();
    for tensor in tensors {
        let kind = tensor.label.replace(|c: char| c.is_ascii_digit(), "");
        let none = Holder { label: tensor.label.clone(), count: 0, bytes: 0 };
        let holder = kinds.entry(kind).or_insert(none);
        holder.count += 1;
        holder.bytes += tensor.bytes;
    }
    let mut holders: Vec<Holder> = kinds.into_values().collect();
    if scratch_bytes > 0 {
        let label = "scratch of the operations".to_owned();
        holders.push(Holder { label, count: 1, bytes: scratch_bytes });
    }
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.bytes));
    holders
}

/// Resident and streamed bytes of the weights of the phase called `phase`.
fn weights_of(checkpoint: &Checkpoint, planned: &Planned, phase: &str) -> (u64, u64) {
    if planned.target.profile.reads_host_memory {
        return (0, 0);
    }
    let (schedule, dtype) = (&planned.schedule, planned.job.dtype);
    let (part, streaming) = match phase {
        "text" => (Part::TextEncoder, schedule.text),
        "encode" => (Part::Encoder, schedule.encode),
        "denoise" => (Part::Transformer, schedule.denoise),
        _ => (Part::Decoder, schedule.decode),
    };
    let (_, mut blocks) = part.of(checkpoint);
    if part == Part::Transformer {
        blocks = checkpoint.transformer.config.step_blocks();
    }
    let weights = Adapted::of(part, checkpoint, &planned.job);
    let ladder = placement::ladder(weights, dtype, &blocks).unwrap_or_default();
    if schedule.warm.has(part) {
        return ladder.last().map_or((0, 0), |all| (all.resident_bytes, 0));
    }
    let rung = ladder.iter().rev().find(|rung| rung.resident_bytes <= streaming.resident_bytes);
    rung.map_or((0, 0), |rung| (rung.resident_bytes, rung.streamed_bytes))
}

/// Host memory that a job holds: what waits for the device, staging, what the run could go on from,
/// and the frames. On a device that is the host, the reservation as well.
pub fn ram_peak_bytes(checkpoint: &Checkpoint, planned: &Planned) -> u64 {
    let target = &planned.target;
    let device = match target.shares_ram {
        true => planned.plan.device_bytes() + target.warm_bytes,
        false => staging_bytes(checkpoint),
    };
    device
        + planned.plan.layout.trace.host_peak_bytes
        + result_bytes(checkpoint, &planned.job, false)
}

/// Host memory that copies go through, and the largest convolutions as they are stored, which are read
/// whole while they are laid out.
pub fn staging_bytes(checkpoint: &Checkpoint) -> u64 {
    let weights = &checkpoint.vae.weights;
    let laid_out = weights.manifest.weights().filter(|spec| spec.form == Form::TapsFirst);
    let largest = laid_out.map(|spec| weights.stored_bytes(spec)).max().unwrap_or(0);
    STAGING_BYTES + LAID_OUT_AT_ONCE * largest
}

/// Bytes of the largest component's files: what the system keeps in its page cache if it can.
fn mapped_bytes(checkpoint: &Checkpoint) -> u64 {
    let components = [
        checkpoint.text_encoder.weights.all_bytes(),
        checkpoint.transformer.weights.all_bytes(),
        checkpoint.vae.weights.all_bytes(),
    ];
    components.into_iter().max().unwrap_or(0)
}
