//! An order as the command line would say it.

use super::loras::Loras;
use std::path::Path;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::request::{FrameCounts, Start};
use vidfit_server::{Order, Refusal, Settled, Task, Work};

/// The options of `plan` and `generate` that an order stands for, but for prompt and output: each in one
/// word, so that nothing of it can be taken for another option. `model` is how the command line names
/// the model, and `input` what the video starts from.
///
/// # Errors
/// A refusal, if it names a LoRA that is not there.
pub fn options(
    order: &Order,
    model: &str,
    task: Task,
    input: &Path,
    loras: &Loras,
) -> Result<Vec<String>, Refusal> {
    let mut words = vec![format!("--model={model}")];
    let mut say = |option: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("--{option}={value}")));
    };
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    let fraction = |value: Option<f64>| value.map(|value| value.to_string());
    say("frames", number(order.num_frames));
    say("width", number(order.width));
    say("height", number(order.height));
    say("fps", fraction(order.fps));
    say("preset", order.preset.clone());
    say("steps", number(order.num_inference_steps));
    say("guidance", fraction(order.guidance_scale));
    say("seed", order.seed.map(|seed| seed.to_string()));
    say("negative-prompt", order.negative_prompt.clone());
    say("lora", order.lora.as_deref().map(|lora| loras.spelled(lora)).transpose()?);
    let input = || Some(input.display().to_string());
    match task {
        Task::T2v => {}
        Task::I2v => say("image", input()),
        Task::V2v => {
            say("video", input());
            say("strength", fraction(order.strength));
        }
    }
    Ok(words)
}

/// The order with its length in frames, where it says it in seconds: the number that the model makes
/// which comes nearest.
pub fn in_frames(order: &Order, checkpoint: &Checkpoint, task: Task) -> Order {
    let Some(seconds) = order.seconds.filter(|_| order.num_frames.is_none()) else {
        return order.clone();
    };
    let start = match task {
        Task::T2v => Start::Text,
        Task::I2v => Start::Image,
        Task::V2v => Start::Video { strength: 1.0 },
    };
    let counts = FrameCounts::of(checkpoint, start);
    let wanted = seconds * order.fps.unwrap_or(checkpoint.variant.fps());
    let index = ((wanted - counts.first as f64) / counts.step as f64).round().max(0.0);
    // A still is no video.
    let least = usize::from(counts.first == 1);
    let frames = counts.nth((index as usize).max(least));
    Order { num_frames: u32::try_from(frames).ok(), ..order.clone() }
}

/// Where a run says what it took.
pub const REPORT: &str = "report.json";

/// The command that makes a job's video, by what was decided when it was accepted. Its run's directory
/// goes once the video is there.
///
/// # Errors
/// As [`options`].
pub fn generate(work: &Work<'_>, model: &str, loras: &Loras) -> Result<Vec<String>, Refusal> {
    let Work { order, settled, reference, .. } = work;
    let Settled { width, height, num_frames, fps, .. } = **settled;
    let decided = Order {
        width: Some(width),
        height: Some(height),
        num_frames: Some(num_frames),
        fps: Some(fps),
        num_inference_steps: Some(settled.num_inference_steps),
        guidance_scale: Some(settled.guidance_scale),
        seed: Some(settled.seed),
        ..(*order).clone()
    };
    let input = reference.map_or(Path::new(""), |reference| &reference.path);
    let mut words = vec!["generate".to_owned(), format!("--prompt={}", order.prompt)];
    words.extend(options(&decided, model, settled.task, input, loras)?);
    words.push("--no-keep".into());
    words.extend(places(work));
    Ok(words)
}

/// The command that goes on with a job's run.
pub fn resume(work: &Work<'_>) -> Vec<String> {
    ["resume", "last"].map(str::to_owned).into_iter().chain(places(work)).collect()
}

/// Where a job's files are.
fn places(work: &Work<'_>) -> [String; 3] {
    [
        format!("--runs={}", work.runs().display()),
        format!("--output={}", work.video().display()),
        format!("--report={}", work.folder.join(REPORT).display()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use vidfit_engine::checkpoint::Variant;

    #[test]
    fn seconds_are_frames_that_the_model_makes() {
        let five_b = Checkpoint::published(Variant::FiveB);
        let one_five = Checkpoint::published(Variant::OneFive);
        let frames = |checkpoint: &Checkpoint, task, seconds: f64, fps: Option<f64>| {
            let order = Order { seconds: Some(seconds), fps, ..Order::default() };
            in_frames(&order, checkpoint, task).num_frames.unwrap()
        };
        for (seconds, expected) in [(6.0, 49), (4.0, 33), (1.0, 9), (0.01, 9), (6.5, 49), (7.0, 57)]
        {
            assert_eq!(frames(&five_b, Task::T2v, seconds, None), expected, "{seconds}");
        }
        assert_eq!(frames(&five_b, Task::T2v, 3.0, Some(16.0)), 49);
        assert_eq!(frames(&one_five, Task::I2v, 5.0, None), 81);
        assert_eq!(frames(&one_five, Task::V2v, 0.1, None), 5);
        let both = Order { seconds: Some(6.0), num_frames: Some(17), ..Order::default() };
        assert_eq!(in_frames(&both, &five_b, Task::T2v), both);
    }

    #[test]
    fn nothing_of_an_order_is_another_option() {
        let order = Order {
            prompt: "--device=cuda:7".into(),
            negative_prompt: Some("--prompts=file".into()),
            preset: Some("--runs=/".into()),
            strength: Some(0.5),
            ..Order::default()
        };
        let settled = Settled {
            task: Task::V2v,
            model: "demo".into(),
            width: 64,
            height: 32,
            num_frames: 17,
            fps: 8.0,
            num_inference_steps: 3,
            guidance_scale: 2.5,
            seed: 7,
            warnings: vec![],
            plan: None,
        };
        let folder = Path::new("/q/jobs/a");
        let work = Work { id: "a", order: &order, settled: &settled, reference: None, folder };
        let words = generate(&work, "demo", &Loras(None)).unwrap();
        let expected = [
            "generate",
            "--prompt=--device=cuda:7",
            "--model=demo",
            "--frames=17",
            "--width=64",
            "--height=32",
            "--fps=8",
            "--preset=--runs=/",
            "--steps=3",
            "--guidance=2.5",
            "--seed=7",
            "--negative-prompt=--prompts=file",
            "--video=",
            "--strength=0.5",
            "--no-keep",
        ];
        assert_eq!(words[..expected.len()], expected);
        let unix = ["--runs=/q/jobs/a/runs", "--output=/q/jobs/a/video.mp4"];
        assert!(cfg!(windows) || words[expected.len()..][..2] == unix, "{words:?}");
        assert_eq!(resume(&work)[..2], ["resume", "last"]);
    }
}
