//! What a run gives: frames, tensors, and what it could go on from.

use super::{Keep, MeasuredPhase};
use crate::pipeline::{Outputs, Reached};
use crate::pixels::Pixels;
use crate::plan::Plan;
use crate::progress::Watch;
use crate::request::Job;
use crate::state::{RunState, image_elements, looks_back};
use std::mem::take;
use std::time::Instant;
use vidfit_cogvideox::vae::Piece;
use vidfit_tensor::{Context, Copied, Device, Error, Tensor};

/// Intermediate results, widened to f32.
#[derive(Clone, Debug, Default)]
pub struct KeptTensors {
    /// `[1, tokens, width]`.
    pub prompt_embeds: Vec<f32>,
    /// `[1, F, C, h, w]`, before the first step.
    pub start_latents: Vec<f32>,
    /// `[1, C, h, w]`, of the image that the video starts from; empty without one.
    pub image_latents: Vec<f32>,
    /// `[1, F, C, h, w]`, after the last step, padding frames included.
    pub latents: Vec<f32>,
    /// `[F, H, W, 3]` in 0..=1, before rounding.
    pub frames: Vec<f32>,
}

/// Brings a run's results to the host. Its buffers: the rounded frames; one piece of a frame in
/// f32; what the run could go on from; and, if they are kept, embeddings, latents and unrounded
/// frames.
pub(super) struct Collecting<'a> {
    job: &'a Job,
    plan: &'a Plan,
    watch: &'a Watch<'a>,
    frames: Vec<Vec<u8>>,
    tensors: Option<KeptTensors>,
    piece: Vec<f32>,
    /// What the run could go on from.
    state: RunState,
    /// Whoever keeps it.
    keep: &'a mut Keep<'a>,
    device: &'a dyn Device,
    /// The phases that have ended.
    phases: Vec<MeasuredPhase>,
    began: Instant,
    copied: Copied,
}

const NOT_NUMBERS: &str = "the video came out as no numbers at all (NaN): the weights are damaged, \
     the guidance is far too strong, or f16 is too narrow for this model (try --dtype f32 or bf16)";

impl<'a> Collecting<'a> {
    /// Takes the memory for the frames, and lets the first phase begin.
    pub fn new(
        job: &'a Job,
        plan: &'a Plan,
        watch: &'a Watch<'a>,
        device: &'a dyn Device,
        keep_tensors: &bool,
        keep: &'a mut Keep<'_>,
    ) -> Collecting<'a> {
        let frame_bytes = job.height * job.width * 3;
        let collecting = Collecting {
            job,
            plan,
            watch,
            frames: vec![vec![0; frame_bytes]; job.frames],
            tensors: keep_tensors.then(KeptTensors::default),
            piece: Vec::new(),
            state: RunState::default(),
            keep,
            device,
            phases: Vec::new(),
            began: Instant::now(),
            copied: device.copied(),
        };
        collecting.announce();
        collecting
    }

    /// The run begins where `state` left off.
    pub fn go_on_from(&mut self, state: &RunState) {
        self.state = state.clone();
    }

    /// The run starts from these.
    pub fn start_from(&mut self, pixels: &Pixels) {
        self.state.pixels = pixels.digest();
    }

    /// What the run can go on from, if its text phase is over.
    pub fn into_state(self) -> Option<RunState> {
        (!self.state.job.is_empty()).then_some(self.state)
    }

    /// Has the state kept, which the run can go on from now.
    fn keep_state(&mut self) -> Result<(), Error> {
        (self.keep)(&self.state).map_err(Error::model)
    }

    /// Ends the last phase.
    pub fn finish(mut self) -> (Vec<Vec<u8>>, Option<KeptTensors>, Vec<MeasuredPhase>) {
        self.end_phase();
        (self.frames, self.tensors, self.phases)
    }

    /// Brings what the run could go on from.
    fn reach(&mut self, cx: &Context<'_>, reached: &Reached<'_>) -> Result<(), Error> {
        let (state, elements) = (&mut self.state, self.job.latent_elements());
        state.latents.resize(elements, 0.0);
        cx.device.download(reached.latents, &mut state.latents)?;
        if let Some(previous) = reached.previous {
            state.previous.resize(elements, 0.0);
            cx.device.download(previous, &mut state.previous)?;
        }
        state.steps_done = reached.steps_done;
        state.generator = reached.generator.state();
        Ok(())
    }

    /// One phase ends and the next begins, once the device has done what it was asked for.
    fn next_phase(&mut self) -> Result<(), Error> {
        self.device.finish()?;
        self.end_phase();
        self.announce();
        Ok(())
    }

    fn end_phase(&mut self) {
        let copied = self.device.copied();
        self.phases.push(MeasuredPhase {
            name: self.job.phases()[self.phases.len()],
            seconds: self.began.elapsed().as_secs_f64(),
            uploaded_bytes: copied.uploaded_bytes - self.copied.uploaded_bytes,
            downloaded_bytes: copied.downloaded_bytes - self.copied.downloaded_bytes,
        });
        self.began = Instant::now();
        self.copied = copied;
    }

    fn announce(&self) {
        let phase = self.phases.len();
        let name = self.job.phases()[phase];
        let steps = (name == "denoise").then_some(self.job.steps.len());
        self.watch.begin(name, self.plan.phases[phase].units, steps);
    }
}

fn fetch(cx: &Context<'_>, tensor: &Tensor) -> Result<Vec<f32>, Error> {
    let mut values = vec![0.0; tensor.shape().elements()];
    cx.device.download(tensor, &mut values)?;
    Ok(values)
}

impl Outputs for Collecting<'_> {
    fn prompt_embeds(&mut self, cx: &Context<'_>, embeds: &[Tensor]) -> Result<(), Error> {
        let elements = embeds.iter().map(|embeds| embeds.shape().elements());
        self.state.embeds = vec![0.0; elements.clone().sum()];
        let mut rest = &mut self.state.embeds[..];
        for (embeds, elements) in embeds.iter().zip(elements) {
            let (values, after) = rest.split_at_mut(elements);
            cx.device.download(embeds, values)?;
            rest = after;
        }
        if let (Some(kept), Some(embeds)) = (&mut self.tensors, embeds.last()) {
            kept.prompt_embeds = fetch(cx, embeds)?;
        }
        if !self.state.has_begun() {
            let (embeds, pixels) = (take(&mut self.state.embeds), take(&mut self.state.pixels));
            self.state = RunState { pixels, ..RunState::of_text(self.job, embeds) };
            self.keep_state()?;
        }
        self.next_phase()
    }

    fn encoded(&mut self, _: &Context<'_>) -> Result<(), Error> {
        self.next_phase()
    }

    fn begun(
        &mut self,
        cx: &Context<'_>,
        reached: &Reached<'_>,
        image: Option<&Tensor>,
    ) -> Result<(), Error> {
        self.state.image.resize(image_elements(self.job), 0.0);
        if looks_back(self.job) {
            // Filled by the first step; what it takes is taken before the work.
            self.state.previous.reserve_exact(self.job.latent_elements());
        }
        if let Some(image) = image {
            cx.device.download(&image.slice(0..1), &mut self.state.image)?;
        }
        self.reach(cx, reached)?;
        if let Some(kept) = &mut self.tensors {
            kept.start_latents = self.state.latents.clone();
            kept.image_latents = self.state.image.clone();
        }
        self.keep_state()
    }

    fn step_done(&mut self, cx: &Context<'_>, reached: &Reached<'_>) -> Result<(), Error> {
        self.reach(cx, reached)?;
        self.watch.steps_done(reached.steps_done);
        self.keep_state()
    }

    fn latents(&mut self, cx: &Context<'_>, latents: &Tensor) -> Result<(), Error> {
        if let Some(kept) = &mut self.tensors {
            kept.latents = fetch(cx, latents)?;
            kept.frames = vec![0.0; self.job.frames * self.job.height * self.job.width * 3];
        }
        self.next_phase()
    }

    fn piece(&mut self, cx: &Context<'_>, piece: Piece<'_>) -> Result<(), Error> {
        let (rows, columns) = (piece.pixels.dims()[0], piece.pixels.dims()[1]);
        self.piece.resize(rows * columns * 3, 0.0);
        cx.device.download(piece.pixels, &mut self.piece)?;
        let stride = self.job.width * 3;
        for (row, line) in self.piece.chunks_exact(columns * 3).enumerate() {
            let start = (piece.top + row) * stride + piece.left * 3;
            let pixels = &mut self.frames[piece.frame][start..start + line.len()];
            if line.iter().any(|value| value.is_nan()) {
                return Err(Error::model(NOT_NUMBERS));
            }
            for (pixel, &value) in pixels.iter_mut().zip(line) {
                *pixel = (value * 255.0).round_ties_even() as u8;
            }
            if let Some(kept) = &mut self.tensors {
                let start = piece.frame * self.job.height * stride + start;
                kept.frames[start..start + line.len()].copy_from_slice(line);
            }
        }
        Ok(())
    }
}
