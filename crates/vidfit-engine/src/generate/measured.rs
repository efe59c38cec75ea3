//! After a run: what was planned beside what was measured.

use super::Generated;
use crate::error::EngineError;
use crate::planner::PlanReport;
use crate::planner::report::SCHEMA_VERSION;
use crate::planner::saved::write_json;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The report of a run, or of its refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The version of the schema, that of the plan.
    pub version: u32,
    /// `done`, `refused`, `failed` or `interrupted`.
    pub outcome: String,
    /// What went wrong, if anything did.
    pub error: Option<String>,
    /// The plan that was run, or the least one if that does not fit; absent if it came to none.
    pub plan: Option<PlanReport>,
    /// Device memory at its fullest, scratch included, as measured.
    pub measured_peak_bytes: Option<u64>,
    /// Host memory that waited for the device at its fullest, as measured.
    pub measured_host_bytes: Option<u64>,
    /// From the beginning of the run to its end.
    pub measured_seconds: Option<f64>,
    /// The phases, in order.
    pub phases: Vec<ComparedPhase>,
}

/// A phase as it was planned and as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedPhase {
    /// `text`, `encode`, `denoise` or `decode`.
    pub name: String,
    /// Device memory at its fullest, scratch included.
    pub planned_peak_bytes: u64,
    /// As measured; absent where the phase was not run.
    pub measured_peak_bytes: Option<u64>,
    /// Its time.
    pub planned_seconds: f64,
    /// As measured.
    pub measured_seconds: Option<f64>,
    /// Bytes that were copied to the device; 0 where the phase was not run.
    pub uploaded_bytes: u64,
    /// Bytes that were copied from the device; 0 where the phase was not run.
    pub downloaded_bytes: u64,
}

impl RunReport {
    /// The report of a run that is done, by the plan that was run.
    pub fn of_done(plan: PlanReport, generated: &Generated) -> RunReport {
        let scratch_bytes = generated.ran.plan.scratch_bytes;
        let measured = &generated.measured;
        let mut report = RunReport::of_plan("done", None, Some(plan));
        report.measured_peak_bytes = Some(measured.peak_bytes + scratch_bytes);
        report.measured_host_bytes = Some(measured.host_peak_bytes);
        report.measured_seconds = Some(generated.phases.iter().map(|phase| phase.seconds).sum());
        for phase in &mut report.phases {
            let peak = measured.phase_peak_bytes.iter().find(|(name, _)| *name == phase.name);
            phase.measured_peak_bytes = peak.map(|(_, bytes)| bytes + scratch_bytes);
            if let Some(took) = generated.phases.iter().find(|took| took.name == phase.name) {
                phase.measured_seconds = Some(took.seconds);
                phase.uploaded_bytes = took.uploaded_bytes;
                phase.downloaded_bytes = took.downloaded_bytes;
            }
        }
        report
    }

    /// The report of a run that did not come to its end: `outcome` is `refused`, `failed` or
    /// `interrupted`.
    pub fn of_plan(outcome: &str, error: Option<String>, plan: Option<PlanReport>) -> RunReport {
        let compared = |plan: &PlanReport| -> Vec<ComparedPhase> {
            let phases = plan.phases.iter().map(|phase| ComparedPhase {
                name: phase.name.clone(),
                planned_peak_bytes: phase.peak_bytes,
                measured_peak_bytes: None,
                planned_seconds: phase.seconds,
                measured_seconds: None,
                uploaded_bytes: 0,
                downloaded_bytes: 0,
            });
            phases.collect()
        };
        RunReport {
            version: SCHEMA_VERSION,
            outcome: outcome.to_owned(),
            error,
            phases: plan.as_ref().map(compared).unwrap_or_default(),
            plan,
            measured_peak_bytes: None,
            measured_host_bytes: None,
            measured_seconds: None,
        }
    }

    /// Writes the report to a file, whole or not at all.
    ///
    /// # Errors
    /// [`EngineError::File`].
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        write_json(path, self)
    }
}
