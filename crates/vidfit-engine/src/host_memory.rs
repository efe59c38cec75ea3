//! Host memory that a job holds for its results.

use crate::checkpoint::Checkpoint;
use crate::request::Job;
use crate::state::image_elements;
use vidfit_cogvideox::vae::encoder_host_bytes;

/// Bytes of host memory that a run holds for its results, and for what it starts from: the rounded
/// frames and those given, the frame at work in f32, what it could go on from, and what is kept.
pub fn result_bytes(checkpoint: &Checkpoint, job: &Job, keep_tensors: bool) -> u64 {
    let frame = (job.height * job.width * 3) as u64;
    let frames = job.frames as u64;
    // Written as bytes, they are there twice.
    let kept = if keep_tensors { 2 * kept_bytes(checkpoint, job) } else { 0 };
    let work = match job.given_frames {
        0 => 4 * frame,
        _ => {
            let (config, size) = (&checkpoint.vae.config, (job.height, job.width));
            encoder_host_bytes(config, job.encode_tiling, size).max(4 * frame)
        }
    };
    // A run that goes on holds the state that it came from, too.
    (frames + job.given_frames as u64) * frame + work + 2 * state_bytes(checkpoint, job) + kept
}

/// Bytes of [`RunState`](crate::state::RunState), in memory and, but for a few thousand, on the disk.
pub fn state_bytes(checkpoint: &Checkpoint, job: &Job) -> u64 {
    let tokens: usize = job.prompts.iter().map(Vec::len).sum();
    let embeds = tokens * checkpoint.text_encoder.config.d_model;
    4 * (embeds + 2 * job.latent_elements() + image_elements(job)) as u64
}

/// Bytes of [`KeptTensors`](crate::generate::KeptTensors).
pub fn kept_bytes(checkpoint: &Checkpoint, job: &Job) -> u64 {
    let embeds = job.prompts.last().map_or(0, Vec::len) * checkpoint.text_encoder.config.d_model;
    let latents = 2 * job.latent_elements() + image_elements(job);
    let frames = job.frames * job.height * job.width * 3;
    4 * (embeds + latents + frames) as u64
}
