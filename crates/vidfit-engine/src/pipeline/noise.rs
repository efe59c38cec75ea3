//! The random numbers of a run.

use crate::request::Job;
use crate::state::RunState;
use vidfit_cogvideox::noise::Generator;
use vidfit_tensor::{DType, Error, Shape};

/// The noise of a run, in the order and type that the reference draws it: for the encoder's
/// posterior, then for the first latents, then for the steps.
pub struct Noise {
    generator: Generator,
    dtype: DType,
}

impl Noise {
    /// The noise of a job from its beginning, or from where `state` left off.
    ///
    /// # Errors
    /// [`Error::Model`] if the state has no generator that could go on.
    pub fn new(job: &Job, state: Option<&RunState>) -> Result<Noise, Error> {
        let generator = match state {
            None => Generator::seed(job.seed),
            Some(state) => Generator::from_state(&state.generator).map_err(Error::model)?,
        };
        Ok(Noise { generator, dtype: job.dtype })
    }

    /// What draws it.
    pub fn generator(&self) -> &Generator {
        &self.generator
    }

    /// The next values, for a tensor of this shape.
    pub fn draw(&mut self, shape: impl Into<Shape>) -> Vec<f32> {
        let elements = shape.into().elements();
        match self.dtype {
            DType::F32 => {
                let mut values = vec![0.0; elements];
                self.generator.fill_normal_f32(&mut values);
                values
            }
            DType::F16 => {
                let mut values = vec![half::f16::ZERO; elements];
                self.generator.fill_normal_f16(&mut values);
                values.iter().map(|value| value.to_f32()).collect()
            }
            DType::BF16 => {
                let mut values = vec![half::bf16::ZERO; elements];
                self.generator.fill_normal_bf16(&mut values);
                values.iter().map(|value| value.to_f32()).collect()
            }
        }
    }

    /// Passes over as many values.
    pub fn skip(&mut self, elements: usize) {
        self.generator.skip_normal(elements, self.dtype != DType::F32);
    }
}
