//! What a run needs to go on from where it stopped.

use std::path::Path;

use crate::error::EngineError;
use crate::pixels::Pixels;
use crate::request::{Job, Start};
use crate::safetensors::{SafetensorsFile, StoredDtype, Values, write_values};
use vidfit_cogvideox::noise::{Generator, GeneratorState, WORDS};
use vidfit_cogvideox::scheduler::Update;

/// A run after its text phase, or after some of its steps: then neither the text encoder nor the VAE's
/// encoder is needed again. Values are widened to f32, which loses nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    /// What it is the state of: see [`RunState::key`].
    pub job: String,
    /// [`Pixels::digest`] of what it started from; empty where that is text alone.
    pub pixels: String,
    /// Denoising steps that are done.
    pub steps_done: usize,
    /// The prompts' embeddings, `[tokens, width]` each, one after another.
    pub embeds: Vec<f32>,
    /// `[F, C, h, w]`; empty until the first step can begin.
    pub latents: Vec<f32>,
    /// DPM's estimate of the clean latents in the step before; empty where there is none.
    pub previous: Vec<f32>,
    /// Latents of the image that it started from, `[C, h, w]`; empty where there is none.
    pub image: Vec<f32>,
    /// What draws the noise of the steps that are left.
    pub generator: GeneratorState,
}

impl RunState {
    /// A run of `job` after its text phase, which made `embeds`.
    pub fn of_text(job: &Job, embeds: Vec<f32>) -> RunState {
        let generator = Generator::seed(job.seed).state();
        RunState { job: RunState::key(job), embeds, generator, ..RunState::default() }
    }

    /// Whether it has come to its first step.
    pub fn has_begun(&self) -> bool {
        !self.latents.is_empty()
    }

    /// What decides a job's numbers, in one line: a state of another job is refused.
    pub fn key(job: &Job) -> String {
        format!(
            "{} {} {:?} {:?} {:?} {} {:?} {:?}",
            job.model,
            job.dtype,
            job.start,
            job.prompts,
            job.grid,
            job.seed,
            job.guidance,
            job.steps
        )
    }

    /// Refuses to go on with other pixels than those that the run started from, if it is given any.
    ///
    /// # Errors
    /// [`EngineError::Request`].
    pub fn check_pixels(&self, pixels: Option<&Pixels>) -> Result<(), EngineError> {
        match pixels {
            Some(pixels) if pixels.digest() != self.pixels => Err(EngineError::Request(
                "the run to go on with started from another image or video; give the same, or none"
                    .into(),
            )),
            _ => Ok(()),
        }
    }

    /// Writes the state to a file, whole or not at all.
    ///
    /// # Errors
    /// As [`write_values`].
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        let steps = (self.steps_done as i64).to_le_bytes();
        let (job, pixels) = (self.job.as_bytes(), self.pixels.as_bytes());
        let generator = words_of(&self.generator);
        let generator_bytes: Vec<u8> = generator.iter().flat_map(|v| v.to_le_bytes()).collect();
        let (embeds, latents) = (Values::Floats(&self.embeds), Values::Floats(&self.latents));
        let (previous, image) = (Values::Floats(&self.previous), Values::Floats(&self.image));
        write_values(
            path,
            &[
                ("steps_done", StoredDtype::I64, &[1], Values::Bytes(&steps)),
                ("embeds", StoredDtype::F32, &[self.embeds.len()], embeds),
                ("latents", StoredDtype::F32, &[self.latents.len()], latents),
                ("previous", StoredDtype::F32, &[self.previous.len()], previous),
                ("image", StoredDtype::F32, &[self.image.len()], image),
                (
                    "generator",
                    StoredDtype::I64,
                    &[generator.len()],
                    Values::Bytes(&generator_bytes),
                ),
                ("pixels", StoredDtype::U8, &[pixels.len()], Values::Bytes(pixels)),
                ("job", StoredDtype::U8, &[job.len()], Values::Bytes(job)),
            ],
        )?;
        Ok(())
    }

    /// Reads what [`RunState::save`] wrote, and holds it to `job`.
    ///
    /// # Errors
    /// [`EngineError::Request`] if it is the state of another job; or as
    /// [`SafetensorsFile::open`].
    pub fn load(path: &Path, job: &Job, embeds: usize) -> Result<RunState, EngineError> {
        let file = SafetensorsFile::open(path)?;
        let wrong = |what: &str| wrong(path, what);
        let floats = |name: &str| -> Result<Vec<f32>, EngineError> {
            let bytes = file.bytes(name)?;
            let words = bytes.chunks_exact(4);
            Ok(words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let words = file.bytes("generator")?.chunks_exact(8);
        let words =
            words.map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
        let generator = generator_of(words.collect()).ok_or_else(|| wrong("it is damaged"))?;
        let state = RunState {
            job: String::from_utf8_lossy(file.bytes("job")?).into_owned(),
            pixels: String::from_utf8_lossy(file.bytes("pixels")?).into_owned(),
            steps_done: steps_done(&file, path)?,
            embeds: floats("embeds")?,
            latents: floats("latents")?,
            previous: floats("previous")?,
            image: floats("image")?,
            generator,
        };
        if state.job != RunState::key(job) {
            return Err(wrong(
                "it belongs to another video; the prompt, model and its files, size, steps, \
                 scheduler, guidance, seed and type must be the same",
            ));
        }
        let latents = job.latent_elements();
        let has_previous = looks_back(job) && state.steps_done > 0;
        let expected = match state.has_begun() {
            true => (latents, if has_previous { latents } else { 0 }, image_elements(job)),
            false => (0, 0, 0),
        };
        let found = (state.latents.len(), state.previous.len(), state.image.len());
        let most_steps = if state.has_begun() { job.steps.len() } else { 0 };
        let whole = found == expected
            && state.steps_done <= most_steps
            && state.embeds.len() == embeds
            && state.pixels.is_empty() == (job.given_frames == 0);
        if whole { Ok(state) } else { Err(wrong("it is damaged")) }
    }
}

impl RunState {
    /// The steps that are done in a state, without the rest of it.
    ///
    /// # Errors
    /// As [`RunState::load`], as far as that can be told from the file alone.
    pub fn steps_done_in(path: &Path) -> Result<usize, EngineError> {
        steps_done(&SafetensorsFile::open(path)?, path)
    }
}

fn steps_done(file: &SafetensorsFile, path: &Path) -> Result<usize, EngineError> {
    let damaged = || wrong(path, "it is damaged");
    let steps: [u8; 8] = file.bytes("steps_done")?.try_into().map_err(|_| damaged())?;
    usize::try_from(i64::from_le_bytes(steps)).map_err(|_| damaged())
}

fn wrong(path: &Path, what: &str) -> EngineError {
    EngineError::Request(format!("{} cannot be gone on with: {what}", path.display()))
}

/// Whether a job's scheduler needs its estimate of the step before.
pub(crate) fn looks_back(job: &Job) -> bool {
    job.steps.iter().any(|step| matches!(step.update, Update::Dpm(_)))
}

/// Values of the latents of the image that a job starts from.
pub(crate) fn image_elements(job: &Job) -> usize {
    match job.start {
        Start::Image => job.latent_elements() / job.latent_frames,
        Start::Text | Start::Video { .. } => 0,
    }
}

/// A generator's state in numbers: the words, how many are used, and the value that is kept, if one
/// is.
fn words_of(state: &GeneratorState) -> Vec<i64> {
    let words = state.words.iter().map(|&word| i64::from(word));
    let kept = state.kept_normal_bits.map(|bits| bits as i64);
    words.chain([state.used as i64]).chain(kept).collect()
}

/// What [`words_of`] has been made of, if it is the state of a generator.
fn generator_of(mut numbers: Vec<i64>) -> Option<GeneratorState> {
    let kept = if numbers.len() > WORDS + 1 { numbers.pop() } else { None };
    let used = usize::try_from(numbers.pop()?).ok()?;
    let words = numbers.into_iter().map(|word| u32::try_from(word).ok()).collect::<Option<_>>()?;
    let state = GeneratorState { words, used, kept_normal_bits: kept.map(|bits| bits as u64) };
    Generator::from_state(&state).is_ok().then_some(state)
}
