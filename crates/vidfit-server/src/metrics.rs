//! Numbers for Prometheus.

use crate::backend::Report;
use crate::job::Status;
use crate::state::{Shared, lock};
use crate::store::StoreError;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is counted.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Seconds and number of each phase.
    phases: Mutex<BTreeMap<String, (f64, u64)>>,
    last: Mutex<Report>,
    crashes: AtomicU64,
    /// Jobs that ended since the server was started.
    ended: Mutex<BTreeMap<&'static str, u64>>,
    worker: AtomicBool,
    held_bytes: AtomicU64,
    /// Answers by status.
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Metrics {
    /// Counts what a job took that has its video.
    pub(crate) fn completed(&self, report: &Report) {
        let mut phases = lock(&self.phases);
        for (phase, seconds) in &report.seconds {
            let (sum, count) = phases.entry(phase.clone()).or_default();
            *sum += seconds;
            *count += 1;
        }
        *lock(&self.last) = report.clone();
    }

    /// Counts a job that ended.
    pub(crate) fn ended(&self, status: Status) {
        *lock(&self.ended).entry(status.word()).or_default() += 1;
    }

    /// Counts a worker that ended under a job.
    pub(crate) fn crashed(&self) {
        self.crashes.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes whether there is a worker. Without one, nothing is held of the device, for there is no
    /// process that could.
    pub(crate) fn worker_lives(&self, lives: bool) {
        self.worker.store(lives, Ordering::Relaxed);
        if !lives {
            self.held_bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Notes what the worker holds of the device, by the plan of its job.
    pub(crate) fn holds(&self, bytes: u64) {
        self.held_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What the worker holds of the device.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        *lock(&self.answers).entry(status).or_default() += 1;
    }
}

/// All numbers, in Prometheus' text format.
pub(crate) fn text(shared: &Shared) -> Result<String, StoreError> {
    let metrics = &shared.metrics;
    let mut page = Page::default();
    page.about("vidfit_jobs", "gauge", "Jobs by status.");
    let counts = shared.store.counts()?;
    for (status, count) in &counts {
        page.line("vidfit_jobs", &[("status", status.word())], f64::from(*count));
    }
    page.about(
        "vidfit_jobs_ended_total",
        "counter",
        "Jobs that ended since the server was started.",
    );
    let ended = lock(&metrics.ended).clone();
    for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
        let count = ended.get(status.word()).copied().unwrap_or(0);
        page.line("vidfit_jobs_ended_total", &[("status", status.word())], count as f64);
    }
    page.about("vidfit_build_info", "gauge", "The version, as a label.");
    page.line("vidfit_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.about("vidfit_queue_length", "gauge", "Jobs that wait.");
    page.line("vidfit_queue_length", &[], shared.store.queue()?.len() as f64);
    page.about(
        "vidfit_jobs_put_off",
        "gauge",
        "Jobs that wait because the machine cannot make them.",
    );
    page.line("vidfit_jobs_put_off", &[], shared.waits.len() as f64);
    page.about("vidfit_queue_limit", "gauge", "Most jobs that may wait.");
    page.line("vidfit_queue_limit", &[], shared.config.queue_limit as f64);
    page.about("vidfit_phase_seconds", "summary", "Time of the phases of completed jobs.");
    for (phase, (sum, count)) in lock(&metrics.phases).iter() {
        page.line("vidfit_phase_seconds_sum", &[("phase", phase)], *sum);
        page.line("vidfit_phase_seconds_count", &[("phase", phase)], *count as f64);
    }
    page.about(
        "vidfit_job_peak_bytes",
        "gauge",
        "Device memory of the job that was completed last.",
    );
    let last = lock(&metrics.last).clone();
    for (kind, bytes) in
        [("planned", last.planned_peak_bytes), ("measured", last.measured_peak_bytes)]
    {
        if let Some(bytes) = bytes {
            page.line("vidfit_job_peak_bytes", &[("kind", kind)], bytes as f64);
        }
    }
    page.about(
        "vidfit_device_held_bytes",
        "gauge",
        "Device memory that the worker holds, by the plan of its job; 0 where there is no worker.",
    );
    page.line("vidfit_device_held_bytes", &[], metrics.held_bytes() as f64);
    page.about("vidfit_worker_processes", "gauge", "Worker processes.");
    page.line("vidfit_worker_processes", &[], f64::from(metrics.worker.load(Ordering::Relaxed)));
    page.about("vidfit_worker_crashes_total", "counter", "Workers that ended under a job.");
    page.line("vidfit_worker_crashes_total", &[], metrics.crashes.load(Ordering::Relaxed) as f64);
    page.about("vidfit_event_streams", "gauge", "Clients that wait for events.");
    page.line("vidfit_event_streams", &[], shared.news.receiver_count() as f64);
    page.about("vidfit_http_responses_total", "counter", "Answers by status.");
    for (status, count) in lock(&metrics.answers).iter() {
        page.line("vidfit_http_responses_total", &[("code", &status.to_string())], *count as f64);
    }
    Ok(page.text)
}

/// A page that is being written.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn about(&mut self, name: &str, kind: &str, help: &str) {
        self.text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text += name;
        if !labels.is_empty() {
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.line("x", &[("a", "say \"hi\"\\\n"), ("b", "c")], 1.5);
        page.line("y", &[], 3.0);
        assert_eq!(page.text, "x{a=\"say \\\"hi\\\"\\\\\\n\",b=\"c\"} 1.5\ny 3\n");
    }
}
