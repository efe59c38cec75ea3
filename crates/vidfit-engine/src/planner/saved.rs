//! A plan in a file: executed exactly, or refused.

use super::decide::check_planable;
use super::planned::Planned;
use super::report::{PlanReport, SCHEMA_VERSION};
use super::target::{Offload, Target};
use crate::checkpoint::Checkpoint;
use crate::digest::Digest;
use crate::error::EngineError;
use crate::plan::Plan;
use crate::request::{Job, Request};
use crate::schedule::Schedule;
use crate::small_file::read_small;
use crate::whole_file::write_whole;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use vidfit_cogvideox::vae::Tiling;
use vidfit_tensor::Profile;

/// A plan as `plan --save` writes it: the report, and what it takes to do just that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPlan {
    /// What people and programs read.
    #[serde(flatten)]
    pub report: PlanReport,
    /// What is run.
    pub run: SavedRun,
}

/// What decides every byte of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRun {
    /// The model as the user named it: a folder, or an id.
    pub model: String,
    /// What to make.
    pub request: Request,
    /// The tiles that were decided on, for decoding.
    pub tiling: Option<Tiling>,
    /// The tiles that were decided on, for encoding.
    #[serde(default)]
    pub encode_tiling: Option<Tiling>,
    /// [`crate::lora::Loras::identity`].
    #[serde(default)]
    pub loras: String,
    /// How memory is used.
    pub schedule: Schedule,
    /// The strategy that led there.
    pub offload: Offload,
    /// What the plan knows of the device.
    pub profile: Profile,
    /// [`Plan::digest`], in hexadecimal.
    pub digest: String,
    /// A digest of the file without it: what was edited is not what was planned. Empty while the
    /// plan is not in a file.
    pub seal: String,
}

impl SavedPlan {
    /// `planned`, made from `request`, of the model that the user calls `model`.
    pub fn of(
        checkpoint: &Checkpoint,
        model: &str,
        request: &Request,
        planned: &Planned,
    ) -> SavedPlan {
        SavedPlan {
            report: PlanReport::of(checkpoint, planned),
            run: SavedRun {
                model: model.to_owned(),
                request: request.clone(),
                tiling: planned.job.tiling,
                encode_tiling: planned.job.encode_tiling,
                loras: planned.job.loras.identity().to_owned(),
                schedule: planned.schedule,
                offload: planned.offload,
                profile: planned.target.profile.clone(),
                digest: planned.plan.digest().to_string(),
                seal: String::new(),
            },
        }
    }

    /// Writes the plan to a file, whole or not at all.
    ///
    /// # Errors
    /// [`EngineError::File`].
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        let mut sealed = self.clone();
        sealed.run.seal = Digest::of(json(path, self)?.as_bytes()).to_string();
        write_json(path, &sealed)
    }

    /// Reads what [`SavedPlan::save`] wrote.
    ///
    /// # Errors
    /// [`EngineError::File`] if it cannot be read, [`EngineError::Request`] if it is no plan, or one
    /// of another version.
    pub fn load(path: &Path) -> Result<SavedPlan, EngineError> {
        let file = |source| EngineError::File { action: "read", path: path.to_owned(), source };
        let wrong = |what: String| {
            EngineError::Request(format!("{} is not a plan to run: {what}", path.display()))
        };
        let text = read_small(path).map_err(file)?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(SCHEMA_VERSION)) {
            let version = version.map_or("none".into(), |version| version.to_string());
            return Err(wrong(format!(
                "its version is {version}, and this program's is {SCHEMA_VERSION}. Make it again \
                 with `vidfit plan --save`"
            )));
        }
        let mut plan: SavedPlan =
            serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        // Held to the text, not to the numbers in it: those may be read a little otherwise.
        let found = std::mem::take(&mut plan.run.seal);
        let unsealed =
            text.trim_end().replacen(&format!("\"seal\": \"{found}\""), "\"seal\": \"\"", 1);
        match Digest::of(unsealed.as_bytes()).to_string() == found {
            true => Ok(plan),
            false => Err(wrong(
                "it was changed since it was saved. Make it again with `vidfit plan --save`".into(),
            )),
        }
    }

    /// The job exactly as it was planned, on `target`.
    ///
    /// # Errors
    /// [`EngineError::Request`] if this checkpoint or this device would not lead to the same bytes.
    pub fn prepare(
        &self,
        checkpoint: &Checkpoint,
        target: &Target,
    ) -> Result<Planned, EngineError> {
        let SavedRun { request, tiling, encode_tiling, schedule, digest, .. } = &self.run;
        let (job, warnings) = Job::new(checkpoint, request)?;
        let job = Job { tiling: *tiling, encode_tiling: *encode_tiling, ..job };
        let mut tilings = [tiling, encode_tiling].into_iter().flatten();
        if let Some(problem) = tilings.find_map(|tiling| tiling.problem(&checkpoint.vae.config)) {
            return Err(EngineError::Request(problem));
        }
        if job.loras.identity() != self.run.loras {
            return Err(EngineError::Request(
                "the saved plan is for other LoRAs: their files have changed since. Make it again \
                 with `vidfit plan --save`"
                    .into(),
            ));
        }
        let heads = checkpoint.transformer.config.num_attention_heads;
        if let Some(problem) = schedule.problem(heads) {
            return Err(EngineError::Request(format!("the saved plan asks for {problem}")));
        }
        check_planable(checkpoint, std::slice::from_ref(&job), u64::MAX)?;
        let plan = Plan::new(checkpoint, &job, schedule, None, &target.profile)?;
        let found = plan.digest().to_string();
        if found != *digest || plan.device_bytes() != self.report.peak_bytes {
            return Err(EngineError::Request(format!(
                "the saved plan is for {} on {}, and does not lead to the same memory here ({} \
                 bytes were planned, {} it would be): the model's files, the device or this \
                 program differ. Make it again with `vidfit plan --save`",
                self.report.model,
                self.report.device,
                self.report.peak_bytes,
                plan.device_bytes()
            )));
        }
        // The times that it was saved with.
        let mut plan = plan;
        for (phase, saved) in plan.phases.iter_mut().zip(&self.report.phases) {
            phase.seconds = saved.seconds;
            phase.waiting_seconds = saved.waiting_seconds;
        }
        Ok(Planned {
            warnings,
            changes_picture: self.report.changes_picture.clone(),
            rejected: self.report.rejected.clone(),
            ..Planned::new(job, *schedule, plan, self.run.offload, target)
        })
    }
}

fn json(path: &Path, value: &impl Serialize) -> Result<String, EngineError> {
    let file = |source| EngineError::File { action: "write", path: path.to_owned(), source };
    serde_json::to_string_pretty(value).map_err(|error| file(error.into()))
}

/// Writes `value` as indented JSON, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), EngineError> {
    let text = json(path, value)?;
    let written = write_whole(path, |out| {
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")
    });
    written.map_err(|source| EngineError::File { action: "write", path: path.to_owned(), source })
}
