//! What a run needs to go on from where it stopped.

use std::path::Path;

use crate::error::EngineError;
use crate::request::Job;
use crate::safetensors::{SafetensorsFile, StoredDtype, Values, write_values};
use vidfit_cogvideox::scheduler::Update;

/// A run after some of its steps. Values are widened to f32, which loses nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    /// What it is the state of: see [`RunState::key`].
    pub job: String,
    /// Denoising steps that are done.
    pub steps_done: usize,
    /// The prompts' embeddings, `[tokens, width]` each, one after another.
    pub embeds: Vec<f32>,
    /// `[F, C, h, w]`.
    pub latents: Vec<f32>,
    /// DPM's estimate of the clean latents in the step before; empty where there is none.
    pub previous: Vec<f32>,
}

impl RunState {
    /// What decides a job's numbers, in one line: a state of another job is refused.
    pub fn key(job: &Job) -> String {
        format!(
            "{} {} {:?} {:?} {} {:?} {:?}",
            job.model, job.dtype, job.prompts, job.grid, job.seed, job.guidance, job.steps
        )
    }

    /// Writes the state to a file, whole or not at all.
    ///
    /// # Errors
    /// As [`write_values`].
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        let steps = (self.steps_done as i64).to_le_bytes();
        let job = self.job.as_bytes();
        let (embeds, latents) = (Values::Floats(&self.embeds), Values::Floats(&self.latents));
        let previous = Values::Floats(&self.previous);
        write_values(
            path,
            &[
                ("steps_done", StoredDtype::I64, &[1], Values::Bytes(&steps)),
                ("embeds", StoredDtype::F32, &[self.embeds.len()], embeds),
                ("latents", StoredDtype::F32, &[self.latents.len()], latents),
                ("previous", StoredDtype::F32, &[self.previous.len()], previous),
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
        let state = RunState {
            job: String::from_utf8_lossy(file.bytes("job")?).into_owned(),
            steps_done: steps_done(&file, path)?,
            embeds: floats("embeds")?,
            latents: floats("latents")?,
            previous: floats("previous")?,
        };
        if state.job != RunState::key(job) {
            return Err(wrong(
                "it belongs to another video; the prompt, model and its files, size, steps, \
                 scheduler, guidance, seed and type must be the same",
            ));
        }
        let latents = job.latent_elements();
        let whole = state.steps_done <= job.steps.len()
            && state.embeds.len() == embeds
            && state.latents.len() == latents
            && state.previous.len() == if looks_back(job) { latents } else { 0 };
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
