//! The video object: a job as clients see it.

use crate::backend::{Refusal, Report};
use crate::job::{Job, Status};
use crate::live::Live;
use crate::order::Task;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A video that was ordered.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Video {
    /// `video_` and 32 hexadecimal digits.
    #[schema(pattern = "^video_[0-9a-f]{32}$")]
    id: String,
    /// Always `video`.
    object: VideoWord,
    /// The model's id.
    model: String,
    status: Status,
    /// How much is done, in percent.
    #[schema(minimum = 0, maximum = 100)]
    progress: u8,
    /// Seconds since 1970.
    created_at: i64,
    /// When the worker first had it.
    #[schema(required)]
    started_at: Option<i64>,
    /// When it ended, however it ended.
    #[schema(required)]
    completed_at: Option<i64>,
    /// Always null: a video stays until it is deleted.
    #[schema(required)]
    expires_at: Option<i64>,
    /// Width x height.
    size: String,
    /// Seconds, as ordered; else the frames' own.
    seconds: String,
    /// Always `standard`.
    quality: Quality,
    prompt: String,
    /// Always null.
    #[schema(required)]
    remixed_from_video_id: Option<String>,
    /// Why there is no video, if there is none.
    #[schema(required)]
    error: Option<VideoError>,
    task: Task,
    num_frames: u32,
    fps: f64,
    num_inference_steps: u32,
    guidance_scale: f64,
    seed: u64,
    #[schema(required)]
    negative_prompt: Option<String>,
    width: u32,
    height: u32,
    #[schema(required)]
    lora: Option<String>,
    #[schema(required)]
    preset: Option<String>,
    #[schema(required)]
    strength: Option<f64>,
    priority: i32,
    /// Its place in the queue, from 1, while it waits.
    #[schema(required)]
    position: Option<usize>,
    /// Why the machine cannot make it now, if it waits for that; it is tried again by itself.
    #[schema(required)]
    waiting: Option<String>,
    /// `text`, `encode`, `denoise` or `decode`, while it is made.
    #[schema(required)]
    phase: Option<String>,
    /// Steps of the phase that are done.
    #[schema(required)]
    step: Option<u64>,
    /// Steps of the phase.
    #[schema(required)]
    steps: Option<u64>,
    /// Time until it is done, at the pace so far.
    #[schema(required)]
    seconds_left: Option<f64>,
    /// What `vidfit plan --json` says of it.
    #[schema(required, value_type = Option<Object>)]
    plan: Option<Value>,
    /// What it took, as far as it is known by now.
    #[schema(required)]
    report: Option<Report>,
    /// What one should know about it.
    warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum VideoWord {
    Video,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Quality {
    Standard,
}

/// Why there is no video.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VideoError {
    /// For programs.
    code: String,
    /// For people.
    message: String,
}

impl Video {
    /// The job, with its progress if it runs, and its place and what else it waits for if it waits.
    pub(crate) fn of(
        job: Job,
        live: Option<&mut Live>,
        position: Option<usize>,
        waiting: Option<String>,
    ) -> Video {
        let Job { order, settled, outcome, .. } = job;
        let live = live.filter(|_| job.status == Status::InProgress);
        let mut video = Video {
            id: job.id,
            object: VideoWord::Video,
            model: settled.model,
            status: job.status,
            progress: if job.status == Status::Completed { 100 } else { outcome.percent },
            created_at: job.created_at,
            started_at: job.started_at,
            completed_at: job.completed_at,
            expires_at: None,
            size: format!("{}x{}", settled.width, settled.height),
            seconds: seconds(order.seconds, settled.num_frames, settled.fps),
            quality: Quality::Standard,
            prompt: order.prompt,
            remixed_from_video_id: None,
            error: outcome.error.map(|Refusal { code, message, .. }| VideoError { code, message }),
            task: settled.task,
            num_frames: settled.num_frames,
            fps: settled.fps,
            num_inference_steps: settled.num_inference_steps,
            guidance_scale: settled.guidance_scale,
            seed: settled.seed,
            negative_prompt: order.negative_prompt,
            width: settled.width,
            height: settled.height,
            lora: order.lora,
            preset: order.preset,
            strength: order.strength,
            priority: order.priority,
            position,
            waiting: waiting.filter(|_| !job.status.is_final() && live.is_none()),
            phase: None,
            step: None,
            steps: None,
            seconds_left: None,
            plan: settled.plan,
            report: outcome.report,
            warnings: Vec::new(),
        };
        let mut told = [settled.warnings, outcome.warnings].concat();
        if let Some(live) = live {
            video.progress = live.percent();
            video.phase.clone_from(&live.phase);
            (video.step, video.steps) = (live.step, live.steps);
            video.seconds_left = live.seconds_left();
            video.report = Some(live.report.clone()).filter(|it| *it != Report::default());
            told.extend_from_slice(&live.warnings);
        }
        // The plan and the run warn of the same.
        for warning in told.iter().map(|text| crate::scrub::without_paths(text)) {
            if !video.warnings.contains(&warning) {
                video.warnings.push(warning);
            }
        }
        video
    }

    /// The id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// How it stands.
    pub(crate) fn status(&self) -> Status {
        self.status
    }
}

/// Seconds, without digits that say nothing.
fn seconds(ordered: Option<f64>, frames: u32, fps: f64) -> String {
    let seconds = ordered.unwrap_or(f64::from(frames) / fps.max(f64::MIN_POSITIVE));
    let digits = format!("{seconds:.3}");
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn seconds_are_said_as_short_as_they_can_be() {
        assert_eq!(seconds(Some(2.0), 17, 8.0), "2");
        assert_eq!(seconds(Some(0.5), 17, 8.0), "0.5");
        assert_eq!(seconds(None, 17, 8.0), "2.125");
        assert_eq!(seconds(None, 80, 8.0), "10");
    }
}
