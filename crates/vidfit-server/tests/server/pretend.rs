//! A program that pretends to make videos: a [`Backend`] and its worker, for tests and for trying the
//! page. What a job does, its prompt says: see [`work`].

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use vidfit_media::{Fps, VideoSettings, VideoWriter};
use vidfit_server::{
    Backend, Gpu, Model, Next, Order, Preset, Reference, ReferenceKind, Refusal, Report, Settled,
    Task, Work,
};

/// The backend.
pub struct Pretend {
    /// How its worker is started, given the queue's folder.
    pub worker: Box<dyn Fn(&Path) -> Command + Send + Sync>,
}

impl Backend for Pretend {
    fn models(&self) -> Vec<Model> {
        let model = |id: &str, tasks: &[Task], available| Model {
            id: id.into(),
            created: 1_700_000_000,
            owned_by: "vidfit".into(),
            tasks: tasks.to_vec(),
            width: 64,
            height: 64,
            num_frames: 17,
            fps: 8.0,
            num_inference_steps: 4,
            guidance_scale: 6.0,
            available,
        };
        vec![
            model("demo", &[Task::T2v, Task::V2v], true),
            model("demo-i2v", &[Task::I2v], true),
            model("far-away", &[Task::T2v], false),
        ]
    }

    fn gpus(&self) -> Vec<Gpu> {
        vec![Gpu {
            id: "sim:8GB".into(),
            name: "a card that is not there".into(),
            used: true,
            memory_bytes: Some(8 << 30),
            free_bytes: Some(7 << 30),
            budget_bytes: Some(6 << 30),
        }]
    }

    fn presets(&self) -> Vec<Preset> {
        let (steps, guidance) = (Some(2), Some(5.0));
        vec![Preset {
            name: "fast".into(),
            description: "quick tries".into(),
            num_inference_steps: steps,
            guidance_scale: guidance,
        }]
    }

    fn settle(&self, order: &Order, reference: Option<&Reference>) -> Result<Settled, Refusal> {
        let task = match reference.map(|reference| reference.kind) {
            None => Task::T2v,
            Some(ReferenceKind::Image) => Task::I2v,
            Some(ReferenceKind::Video) => Task::V2v,
        };
        self.decide(order, task).and_then(|settled| match settled.num_frames {
            0..=1000 if order.prompt.contains("no disk") => {
                Err(Refusal::new("disk_full", "9 GB are needed in /srv/q, and 3 GB are free"))
            }
            0..=1000 => Ok(settled),
            frames => Err(Refusal::new("does_not_fit", format!("{frames} frames do not fit"))),
        })
    }

    fn plan(&self, order: &Order, task: Task) -> Result<Value, Refusal> {
        let settled = self.decide(order, task)?;
        let mut plan = settled.plan.unwrap_or_default();
        plan["fits"] = (settled.num_frames <= 1000).into();
        Ok(plan)
    }

    fn next(&self, work: &Work<'_>) -> Result<Next, Refusal> {
        if work.order.prompt.contains("impossible") {
            return Err(Refusal::new("gone", "the model in /srv/models/x is gone"));
        }
        if work.order.prompt.contains("away") && !work.folder.join("here").exists() {
            return Ok(Next::Wait("the model in /srv/models/x is not here now".into()));
        }
        let is_gone = work.order.prompt.contains("vanish") && work.runs().join("gone").exists();
        if is_gone && !work.folder.join("here").exists() {
            return Ok(Next::Wait("the model in /srv/models/x is not here now".into()));
        }
        if work.video().exists() {
            return Ok(Next::Done);
        }
        let word = if work.runs().join("state").exists() { "resume" } else { "generate" };
        Ok(Next::Words(vec![
            word.into(),
            work.order.prompt.clone(),
            work.settled.num_inference_steps.to_string(),
            work.runs().to_string_lossy().into(),
            work.video().to_string_lossy().into(),
            work.reference.map_or(String::new(), |it| it.path.to_string_lossy().into()),
        ]))
    }

    fn report(&self, work: &Work<'_>) -> Option<Report> {
        let text = fs::read_to_string(work.runs().join("report")).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn worker(&self, queue_dir: &Path) -> Command {
        (self.worker)(queue_dir)
    }
}

impl Pretend {
    fn decide(&self, order: &Order, task: Task) -> Result<Settled, Refusal> {
        let id = order.model.as_deref().unwrap_or("demo");
        let models = self.models();
        let Some(model) = models.iter().find(|model| model.id == id) else {
            return Err(
                Refusal::new("unknown_model", format!("there is no model {id}")).about("model")
            );
        };
        if let Some(lora) = &order.lora {
            return Err(
                Refusal::new("unknown_lora", format!("there is no LoRA {lora}")).about("lora")
            );
        }
        if let Some(preset) = order.preset.as_ref().filter(|it| *it != "fast") {
            let message = format!("there is no preset {preset}");
            return Err(Refusal::new("unknown_preset", message).about("preset"));
        }
        let side = |name: &str, side: Option<u32>| match side.unwrap_or(64) {
            side if side.is_multiple_of(16) => Ok(side),
            _ => Err(Refusal::new("bad_size", "sizes are multiples of 16").about(name)),
        };
        let fps = order.fps.unwrap_or(model.fps);
        let asked = order.seconds.map(|seconds| (seconds * fps) as u32 / 8 * 8 + 1);
        Ok(Settled {
            task,
            model: model.id.clone(),
            width: side("width", order.width)?,
            height: side("height", order.height)?,
            num_frames: order.num_frames.or(asked).unwrap_or(model.num_frames),
            fps,
            num_inference_steps: order.num_inference_steps.unwrap_or(model.num_inference_steps),
            guidance_scale: order.guidance_scale.unwrap_or(model.guidance_scale),
            seed: order.seed.unwrap_or(42),
            warnings: vec![],
            plan: Some(json!({ "version": 1, "model": id, "fits": true, "peak_bytes": 3_000_000,
                "seconds": 10.0, "phases": [
                    { "name": "text", "seconds": 1.0 }, { "name": "denoise", "seconds": 8.0 },
                    { "name": "decode", "seconds": 1.0 }] })),
        })
    }
}

/// How a job can be stopped.
#[derive(Default)]
struct Wishes {
    /// The input has ended.
    stop: AtomicBool,
    cancelled: Mutex<Vec<String>>,
}

impl Wishes {
    fn unwanted(&self, job: &str) -> bool {
        self.stop.load(Ordering::Relaxed)
            || self.cancelled.lock().unwrap().iter().any(|it| it == job)
    }
}

/// The worker: speaks the protocol, and does what the prompts say.
///
/// `slow`: a step takes 20 ms instead of none. `crash 2`: ends twice, in the middle. `fail`: fails.
/// `no room`: does not fit the first three times. `full`: finds the disk full at step 2, unless there is
/// a file `room` in its folder. `deaf`: does not stop when asked to. `noise`: says other things, too.
/// `no video`: says that it is done, and is not. `real`: takes seconds, for people to watch.
pub fn work(queue_dir: &Path) -> ! {
    let lock = File::create(queue_dir.join("worker.lock")).unwrap();
    lock.lock().unwrap();
    say(&json!({ "event": "ready" }));
    let wishes = Arc::new(Wishes::default());
    let (sender, jobs) = mpsc::channel::<(String, Vec<String>)>();
    let listening = wishes.clone();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap();
            if let Some(id) = line["cancel"].as_str() {
                listening.cancelled.lock().unwrap().push(id.into());
            } else {
                let words = serde_json::from_value(line["words"].clone()).unwrap();
                sender.send((line["job"].as_str().unwrap().into(), words)).unwrap();
            }
        }
        listening.stop.store(true, Ordering::Relaxed);
    });
    while let Ok((job, words)) = jobs.recv() {
        let (code, message) = make(&job, &words, &wishes);
        let fault = message.as_deref().filter(|it| it.contains("No space left")).map(|_| "machine");
        say(&json!({ "job": job, "event": "ended", "code": code, "message": message,
            "fault": fault }));
    }
    drop(lock);
    std::process::exit(0)
}

/// Writes a line, though nobody may be there to read it.
fn say(line: &Value) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Makes a video, or does not: the exit code, and what to say.
fn make(job: &str, words: &[String], wishes: &Wishes) -> (i32, Option<String>) {
    let [word, prompt, steps, runs, output, reference] = words else { panic!("{words:?}") };
    let steps: u64 = steps.parse().unwrap();
    let (runs, output) = (PathBuf::from(runs), PathBuf::from(output));
    let tell = |mut event: Value| {
        event["job"] = job.into();
        say(&event);
    };
    if !reference.is_empty() && !Path::new(reference).exists() {
        return (2, Some(format!("{reference} is not there")));
    }
    fs::create_dir_all(&runs).unwrap();
    assert_eq!(word == "resume", runs.join("state").exists());
    let count = |name: &str| -> u64 {
        fs::read_to_string(runs.join(name)).map_or(0, |text| text.trim().parse().unwrap())
    };
    let note = |name: &str, number: u64| fs::write(runs.join(name), number.to_string()).unwrap();
    let pause = match prompt {
        prompt if prompt.contains("real") => Duration::from_millis(600),
        prompt if prompt.contains("slow") => Duration::from_millis(20),
        _ => Duration::ZERO,
    };
    note("state", count("state"));
    tell(json!({ "event": "planned", "peak_bytes": 2_000_000, "scratch_bytes": 1_000_000,
        "overhead_bytes": 500_000 }));
    if prompt.contains("noise") {
        println!("this is no JSON");
        say(&json!([1]));
        say(&json!({ "job": "video_0", "event": "ended", "code": 1 }));
        for _ in 0..2 {
            let message = "the file /srv/secret/weights.bin is old";
            tell(json!({ "event": "warning", "message": message }));
        }
    }
    tell(json!({ "event": "phase_began", "phase": "text", "steps": null }));
    thread::sleep(pause);
    tell(json!({ "event": "phase_ended", "phase": "text", "seconds": 0.5 }));
    match prompt {
        it if it.contains("fail") => {
            return (1, Some("reading /srv/secret/weights.bin: it is damaged".into()));
        }
        it if it.contains("no room") && count("tries") < 3 => {
            note("tries", count("tries") + 1);
            return (3, Some("3 GB are needed, 2 GB are free".into()));
        }
        it if it.contains("vanish") && !runs.join("gone").exists() => {
            note("gone", 1);
            return (2, Some("/srv/models/x is not there".into()));
        }
        it if it.contains("no video") => return (0, None),
        _ => {}
    }
    tell(json!({ "event": "phase_began", "phase": "denoise", "steps": steps }));
    for step in count("state")..steps {
        if wishes.unwanted(job) && !prompt.contains("deaf") {
            return (130, Some("interrupted".into()));
        }
        if let Some(crashes) = prompt.strip_prefix("crash ")
            && step == 2
            && count("crashes") < crashes.split(' ').next().unwrap().parse().unwrap()
        {
            note("crashes", count("crashes") + 1);
            std::process::exit(9);
        }
        if prompt.starts_with("full") && step == 2 && !runs.join("../room").exists() {
            return (1, Some("cannot write /srv/q/state: No space left on device".into()));
        }
        thread::sleep(pause);
        // Every step that is made is noted, so that a test can see that none is made twice.
        let mut log = File::options().create(true).append(true).open(runs.join("steps")).unwrap();
        writeln!(log, "{step}").unwrap();
        note("state", step + 1);
        let (done, all) = ((step + 1) as f64, steps as f64);
        tell(json!({ "event": "progress", "phase": "denoise", "steps_done": step + 1,
            "fraction": done / all, "seconds_left": (all - done) * pause.as_secs_f64() }));
    }
    tell(json!({ "event": "phase_ended", "phase": "denoise", "seconds": 2.0 }));
    draw(&output);
    let report = json!({ "planned_peak_bytes": 3_000_000, "measured_peak_bytes": 2_900_000,
        "seconds": { "text": 0.5, "denoise": 2.0 } });
    fs::write(runs.join("report"), report.to_string()).unwrap();
    (0, None)
}

/// A square that moves.
fn draw(output: &Path) {
    let settings = VideoSettings::new(64, 64, Fps::new(8.0).unwrap());
    let mut video = VideoWriter::create(output, settings).unwrap();
    for frame in 0..9 {
        let mut rgb = vec![30; 64 * 64 * 3];
        for at in 0..16 * 16 {
            let (x, y) = (frame * 4 + at % 16, 24 + at / 16);
            rgb[(y * 64 + x) * 3] = 220;
        }
        video.write_frame(&rgb).unwrap();
    }
    video.finish().unwrap();
}
