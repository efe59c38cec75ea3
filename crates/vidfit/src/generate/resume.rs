//! Runs that stopped where they can go on.

use crate::exit::Failure;
use std::path::{Path, PathBuf};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::Prepared;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::Target;
use vidfit_engine::request::{Job, Request, TilingChoice};
use vidfit_engine::state::RunState;

/// Reads what a run can go on from, and plans the rest of it.
///
/// # Errors
/// Bad input if the file is of another job.
pub fn go_on(
    path: &Path,
    checkpoint: &Checkpoint,
    prepared: &mut Prepared,
    target: &Target,
) -> Result<RunState, Failure> {
    let tokens: usize = prepared.job.prompts.iter().map(Vec::len).sum();
    let embeds = tokens * checkpoint.text_encoder.config.d_model;
    let state = RunState::load(path, &prepared.job, embeds)?;
    let Prepared { job, schedule, .. } = &*prepared;
    let (profile, rates) = (&target.profile, &target.rates);
    prepared.plan = Plan::timed(checkpoint, job, schedule, Some(&state), profile, rates)?;
    Ok(state)
}

/// What a run that ended in `error` leaves behind: its state beside the video's place, and the
/// command that goes on from there.
pub fn leave(error: EngineError, output: &Path, asked: &Asked) -> Failure {
    let EngineError::Stopped { state: Some(state), .. } = &error else { return error.into() };
    let path = beside(output);
    match state.save(&path) {
        Ok(()) => {
            Failure::other(format!("{error}. Go on with:\n    {}", asked.command(output, &path)))
        }
        Err(lost) => Failure::other(format!("{error}, but could not be kept: {lost}")),
    }
}

/// `video.mp4.resume`, of `video.mp4`.
fn beside(output: &Path) -> PathBuf {
    let text = output.to_string_lossy();
    PathBuf::from(format!("{}.resume", text.trim_end_matches(['/', '\\'])))
}

/// What was asked for on the command line, and what became of it.
pub struct Asked {
    /// The words of the command line, the program's name first.
    pub words: Vec<String>,
    /// The model and the job that were decided on, if those were not spelled out: they might be
    /// decided otherwise the next time.
    pub decided: Option<(String, Request)>,
}

/// The request that leads to `job` again, whatever memory there is then.
pub fn spelled_out(request: &Request, job: &Job) -> Request {
    let is_tiled = job.tiling.is_some() || job.encode_tiling.is_some();
    let tiling = if is_tiled { TilingChoice::On } else { TilingChoice::Off };
    Request {
        frames: Some(job.asked_frames()),
        height: Some(job.height),
        width: Some(job.width),
        dtype: job.dtype,
        tiling,
        tile_height: job.tiling.map(|tiles| tiles.height),
        tile_width: job.tiling.map(|tiles| tiles.width),
        encode_tile_height: job.encode_tiling.map(|tiles| tiles.height),
        encode_tile_width: job.encode_tiling.map(|tiles| tiles.width),
        ..request.clone()
    }
}

/// Options of `generate` that the decision took the place of, with their values if they take one.
const DECIDED: [(&str, bool); 18] = [
    ("--fit", false),
    ("--fit-order", true),
    ("--fallback-model", true),
    ("--frames", true),
    ("--num_frames", true),
    ("--num-frames", true),
    ("--height", true),
    ("--width", true),
    ("--model", true),
    ("--model_path", true),
    ("-m", true),
    ("--vae-tiling", true),
    ("--vae_tiling", true),
    ("--tile-height", true),
    ("--tile-width", true),
    ("--encode-tile-height", true),
    ("--encode-tile-width", true),
    ("--dtype", true),
];

impl Asked {
    /// The command that goes on from `state`.
    fn command(&self, output: &Path, state: &Path) -> String {
        // What comes after `--` is no option, whatever it looks like.
        let end = self.words.iter().position(|word| word == "--").unwrap_or(self.words.len());
        let (options, rest) = self.words.split_at(end);
        let mut words = options.to_vec();
        remove(&mut words, "--resume", true);
        if let Some((model, request)) = &self.decided {
            for (option, takes_value) in DECIDED {
                remove(&mut words, option, takes_value);
            }
            words.extend(["--model".to_owned(), model.clone()]);
            words.extend(flags(request));
        }
        for option in ["-o", "--output", "--output_path"] {
            remove(&mut words, option, true);
        }
        words.extend(["-o".to_owned(), output.to_string_lossy().into_owned()]);
        words.extend(["--resume".to_owned(), state.to_string_lossy().into_owned()]);
        words.extend_from_slice(rest);
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// The options that ask for the sizes, the type and the tiles of a request.
fn flags(request: &Request) -> Vec<String> {
    let tiling = match request.tiling {
        TilingChoice::Auto => "auto",
        TilingChoice::On => "on",
        TilingChoice::Off => "off",
    };
    let number = |number: Option<usize>| number.map(|number| number.to_string());
    let options = [
        ("--frames", number(request.frames)),
        ("--height", number(request.height)),
        ("--width", number(request.width)),
        ("--dtype", Some(request.dtype.to_string())),
        ("--vae-tiling", Some(tiling.to_owned())),
        ("--tile-height", number(request.tile_height)),
        ("--tile-width", number(request.tile_width)),
        ("--encode-tile-height", number(request.encode_tile_height)),
        ("--encode-tile-width", number(request.encode_tile_width)),
    ];
    let given = options.into_iter().filter_map(|(option, value)| Some([option.to_owned(), value?]));
    given.flatten().collect()
}

/// Takes an option away, as `--option value` or as `--option=value`; a short one as `-ovalue`, too.
fn remove(words: &mut Vec<String>, option: &str, takes_value: bool) {
    while let Some(place) = words.iter().position(|word| word == option) {
        let end = (place + 1 + usize::from(takes_value)).min(words.len());
        words.drain(place..end);
    }
    let attached = if option.starts_with("--") { format!("{option}=") } else { option.to_owned() };
    words.retain(|word| !word.starts_with(&attached));
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vidfit_engine::checkpoint::Variant;
    use vidfit_engine::request::tiles;
    use vidfit_tensor::{DType, Error};

    fn words(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn the_command_goes_on_with_the_very_job() {
        let asked = Asked {
            words: words(
                "vidfit|generate|It's a panda|--resume=old|--frames|fit|--fit|--seed|7|--dtype|bf16",
            ),
            decided: Some((
                "zai-org/CogVideoX-2b".into(),
                Request {
                    frames: Some(25),
                    tiling: TilingChoice::Off,
                    dtype: DType::F16,
                    ..Request::new("")
                },
            )),
        };
        assert_eq!(
            asked.command(Path::new("v.mp4"), Path::new("v.mp4.resume")),
            "vidfit generate 'It'\\''s a panda' --seed 7 --model zai-org/CogVideoX-2b --frames 25 \
             --dtype f16 --vae-tiling off -o v.mp4 --resume v.mp4.resume"
        );
        let asked =
            Asked { words: words("vidfit|generate|x|--frames|9|-o|out dir/"), decided: None };
        assert_eq!(
            asked.command(Path::new("out dir/"), Path::new("out dir.resume")),
            "vidfit generate x --frames 9 -o 'out dir/' --resume 'out dir.resume'"
        );
    }

    #[test]
    fn what_was_left_open_is_spelled_out() {
        let checkpoint = Checkpoint::published(Variant::TwoB);
        let request = Request { dtype: DType::F16, ..Request::new("") };
        let (job, _) = Job::new(&checkpoint, &request).unwrap();
        let whole = spelled_out(&request, &job);
        assert_eq!(
            flags(&whole).join(" "),
            "--frames 49 --height 480 --width 720 --dtype f16 --vae-tiling off"
        );
        let tiled = job.clone().with_tiles(tiles(&checkpoint, &request).unwrap());
        let again = spelled_out(&request, &tiled);
        assert_eq!(
            flags(&again).join(" "),
            "--frames 49 --height 480 --width 720 --dtype f16 --vae-tiling on --tile-height 240 \
             --tile-width 360"
        );
        // They lead to the same job, tiles and all.
        for (request, job) in [(whole, job), (again, tiled)] {
            assert_eq!(Job::new(&checkpoint, &request).unwrap().0.tiling, job.tiling);
        }
        let asked = Asked {
            words: words("vidfit|generate|x|--vae_tiling=auto|--tile-width|64|--fit-order=size"),
            decided: Some(("2b".into(), Request::new(""))),
        };
        assert_eq!(
            asked.command(Path::new("v"), Path::new("v.resume")),
            "vidfit generate x --model 2b --dtype f32 --vae-tiling auto -o v --resume v.resume"
        );
    }

    #[test]
    fn short_options_are_taken_away_with_the_value_that_clings_to_them() {
        let asked = Asked {
            words: words("vidfit|generate|-ovideo.mp4|-mDIR|--seed|7|--|--frames=9"),
            decided: Some(("2b".into(), Request::new(""))),
        };
        assert_eq!(
            asked.command(Path::new("w.mp4"), Path::new("w.mp4.resume")),
            "vidfit generate --seed 7 --model 2b --dtype f32 --vae-tiling auto -o w.mp4 --resume \
             w.mp4.resume -- --frames=9"
        );
        let asked = Asked { words: words("vidfit|generate|--|-ox"), decided: None };
        assert_eq!(
            asked.command(Path::new("w"), Path::new("w.resume")),
            "vidfit generate -o w --resume w.resume -- -ox"
        );
    }

    #[test]
    fn a_stopped_run_leaves_its_state_and_says_how_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("v");
        let asked = Asked { words: words("vidfit|generate|x"), decided: None };
        let stopped = |state| EngineError::Stopped {
            source: Error::Transfer { device: "sim".into(), what: "an upload failed".into() },
            state,
        };
        let state = RunState { steps_done: 3, job: "a job".into(), ..RunState::default() };
        let named = PathBuf::from(format!("{}/", output.display()));
        let failure = leave(stopped(Some(Box::new(state))), &named, &asked);
        assert_eq!(failure.code, 1);
        assert!(failure.message.contains("3 steps are not lost"), "{}", failure.message);
        assert!(failure.message.contains("v.resume"), "{}", failure.message);
        assert!(folder.path().join("v.resume").is_file());
        let failure = leave(stopped(None), &folder.path().join("w"), &asked);
        assert!(!failure.message.contains("--resume"), "{}", failure.message);
        assert!(!folder.path().join("w.resume").exists());
    }
}
