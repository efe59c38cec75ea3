//! The reference on the same card: `bench/reference_card.py`.

use super::placements::{Measured, Placement};
use crate::bench::table::Table;
use crate::exit::Failure;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::request::Job;

/// What the reference takes, eagerly and with all weights on the card.
#[derive(Serialize, Deserialize)]
pub struct Reference {
    /// The versions of what it is made of.
    pub versions: String,
    /// A transformer step with both halves of guidance in one batch, in seconds.
    pub step_seconds: f64,
    /// The decoding, in seconds.
    pub decode_seconds: f64,
    /// The most memory that its allocator held in a step.
    pub step_peak_bytes: u64,
    /// The same in decoding.
    pub decode_peak_bytes: u64,
    /// A product of matrices of 8192 rows and columns, in TFLOP/s.
    pub product_tflops: f64,
    /// Copies from pinned memory to the card, in GB/s.
    pub upload_gigabytes_per_second: f64,
}

/// Times the reference at the job's shapes.
///
/// # Errors
/// If there is no such Python, or it fails.
pub fn measure(
    python: &Path,
    script: &Path,
    checkpoint: &Checkpoint,
    job: &Job,
) -> Result<Reference, Failure> {
    let latents = [job.latent_frames, job.padding_frames, job.latent_height, job.latent_width];
    let [frames, padding, rows, columns] = latents.map(|length| length.to_string());
    let output = Command::new(python)
        .arg(script)
        .args(["--model", checkpoint.variant.name(), "--dtype", &job.dtype.to_string()])
        .args(["--frames", &frames, "--padding", &padding, "--rows", &rows, "--columns", &columns])
        .output()
        .map_err(|error| Failure::input(format!("{} did not start: {error}", python.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).map_err(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        Failure::other(format!(
            "{} failed ({}): {}",
            script.display(),
            output.status,
            errors.trim_end()
        ))
    })
}

/// Both, side by side.
pub fn table(reference: &Reference, measured: &[(Placement, Measured)]) -> Table {
    let mut rows = vec![vec![
        format!("reference, {}", reference.versions),
        format!("{:.3} s", reference.step_seconds),
        String::new(),
        format!("{:.3} s", reference.decode_seconds),
        String::new(),
    ]];
    for (placement, row) in measured {
        let Measured::Made(made) = row else { continue };
        let decode = made.phases.iter().find(|phase| phase.name == "decode");
        let decode = decode.map_or(0.0, |phase| phase.seconds);
        rows.push(vec![
            placement.name.clone() + if made.is_tiled { ", in tiles" } else { "" },
            format!("{:.3} s", made.step_seconds),
            format!("{:.2}", made.step_seconds / reference.step_seconds),
            format!("{decode:.3} s"),
            format!("{:.2}", decode / reference.decode_seconds),
        ]);
    }
    Table {
        title: "Beside the reference".into(),
        note: format!(
            "The reference has all weights on the card and decodes whole. On this card its library \
             multiplies at {:.0} TFLOP/s, and pinned memory is copied to it at {:.1} GB/s.",
            reference.product_tflops, reference.upload_gigabytes_per_second
        ),
        columns: vec!["", "a step", "ratio", "decode", "ratio"],
        words: 1,
        rows,
    }
}
