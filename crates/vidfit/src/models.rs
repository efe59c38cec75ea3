//! `vidfit models`.

use crate::args::{ModelsArgs, ModelsCommand};
use crate::demo;
use crate::exit::Failure;
use crate::human::{duration, size};
use crate::interrupt;
use crate::progress::Shown;
use crate::say::{answer, line, note};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::time::Duration;
use vidfit_engine::hub::{HubConfig, PullEvent, list_local, pull};

/// Downloads or lists models.
pub fn run(args: ModelsArgs) -> Result<(), Failure> {
    match args.command {
        ModelsCommand::Pull { id, progress } => pull_model(&id, Shown::from(progress)),
        ModelsCommand::List { json } => list(json),
    }
}

fn pull_model(id: &str, shown: Shown) -> Result<(), Failure> {
    let stop = interrupt::watch()?;
    let mut bar = None;
    let mut listener = |event: PullEvent| match shown {
        Shown::Bars => draw(&mut bar, event),
        Shown::Lines => tell(event),
        Shown::Json => line!("{}", as_json(&event)),
        Shown::Job(_) | Shown::Nothing => {}
    };
    let dir = pull(id, &HubConfig::from_env(), &mut listener, &stop)?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    shown.say(&format!("{id} is in {}", dir.display()));
    shown.event(json!({ "event": "done", "dir": dir }));
    Ok(())
}

fn draw(bar: &mut Option<ProgressBar>, event: PullEvent) {
    match event {
        PullEvent::Planned { total_bytes, cached_bytes, .. } => {
            let new =
                ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr());
            let template = "{bar:24} {bytes}/{total_bytes} {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                new.set_style(style);
            }
            new.set_position(cached_bytes);
            *bar = Some(new);
        }
        PullEvent::Progress(progress) => {
            let Some(bar) = bar else { return };
            bar.set_position(progress.done_bytes);
            bar.set_message(format!("{} {}", pace(&progress), progress.file));
        }
        PullEvent::FileDone { .. } => {}
        other => match bar {
            Some(bar) => bar.println(sentence(&other)),
            None => tell(other),
        },
    }
}

fn tell(event: PullEvent) {
    if !matches!(event, PullEvent::Progress(_)) {
        note!("{}", sentence(&event));
    }
}

fn pace(progress: &vidfit_engine::hub::PullProgress) -> String {
    let speed = progress.bytes_per_second / f64::from(1 << 20);
    match progress.seconds_left {
        Some(left) => format!("{speed:.1} MB/s, {} left", duration(Duration::from_secs_f64(left))),
        None => String::new(),
    }
}

fn sentence(event: &PullEvent) -> String {
    match event {
        PullEvent::Planned { files, total_bytes, cached_bytes, .. } => format!(
            "{files} files, {}, of which {} are here",
            size(*total_bytes),
            size(*cached_bytes)
        ),
        PullEvent::Progress(progress) => format!("{} {}", progress.file, pace(progress)),
        PullEvent::FileDone { file } => format!("{file} done"),
        PullEvent::Waiting { file } => format!("another process downloads {file}; waiting for it"),
        PullEvent::Retrying { reason, wait } => {
            format!("{reason}; trying again in {}", duration(*wait))
        }
    }
}

fn as_json(event: &PullEvent) -> serde_json::Value {
    match event {
        PullEvent::Planned { commit, files, total_bytes, cached_bytes } => json!({
            "event": "planned", "commit": commit, "files": files,
            "total_bytes": total_bytes, "cached_bytes": cached_bytes,
        }),
        PullEvent::Progress(progress) => json!({
            "event": "progress", "file": progress.file, "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
            "bytes_per_second": progress.bytes_per_second,
            "seconds_left": progress.seconds_left,
        }),
        PullEvent::FileDone { file } => json!({ "event": "file_done", "file": file }),
        PullEvent::Waiting { file } => json!({ "event": "waiting", "file": file }),
        PullEvent::Retrying { reason, wait } => {
            json!({ "event": "retrying", "reason": reason, "seconds": wait.as_secs_f64() })
        }
    }
}

fn list(as_json: bool) -> Result<(), Failure> {
    let models = list_local(&HubConfig::from_env())?;
    let demo = &demo::MODEL;
    if as_json {
        let built_in = json!({
            "id": demo.name(), "built_in": true, "revisions": null, "commit": null, "dir": null,
            "bytes": demo.bytes(), "class": "CogVideoXPipeline",
        });
        let downloaded = models.iter().map(|model| {
            json!({
                "id": model.id, "built_in": false, "revisions": model.revisions,
                "commit": model.commit, "dir": model.dir, "bytes": model.bytes,
                "class": model.pipeline_class,
            })
        });
        let all: Vec<_> = std::iter::once(built_in).chain(downloaded).collect();
        return answer(&serde_json::Value::from(all).to_string());
    }
    let line = |id: &str, bytes: u64, place: &str| format!("{id:40} {:>9}  {place}", size(bytes));
    let built_in = line(demo.name(), demo.bytes(), "built in; used where no model is named");
    let downloaded =
        models.iter().map(|model| line(&model.id, model.bytes, &model.dir.display().to_string()));
    let lines: Vec<String> = std::iter::once(built_in).chain(downloaded).collect();
    answer(&lines.join("\n"))?;
    if models.is_empty() {
        note!("no others are here; get one with vidfit models pull zai-org/CogVideoX-2b");
    }
    Ok(())
}
