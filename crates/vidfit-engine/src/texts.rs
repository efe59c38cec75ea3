//! The text phase of many jobs at once: each layer of the text encoder is brought once for all of
//! their prompts, or for as many as there is room for.

use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::placement::{Placed, Streaming, Use};
use crate::planner::Target;
use crate::progress::{Listener, Watch};
use crate::request::Job;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vidfit_cogvideox::t5;
use vidfit_tensor::{
    Arena, Context, DType, Device, DryDevice, Error, Layout, Tensor, Unwatched, solve,
};

/// Prompts, as token ids, with their embeddings.
pub type Texts = BTreeMap<Vec<usize>, Vec<f32>>;

/// The embeddings of all prompts of `jobs`, which are of this checkpoint and of one type, and how
/// often the text encoder was brought for them.
///
/// # Errors
/// [`EngineError::DoesNotFit`] if there is no room for a single prompt; otherwise as a run.
pub fn encode_texts(
    checkpoint: &Checkpoint,
    jobs: &[&Job],
    device: &Arc<dyn Device>,
    target: &Target,
    stop: &AtomicBool,
    listener: Listener,
) -> Result<(Texts, usize), EngineError> {
    let mut prompts: Vec<&[usize]> =
        jobs.iter().flat_map(|job| job.prompts.iter().map(Vec::as_slice)).collect();
    prompts.sort_unstable();
    prompts.dedup();
    let Some(dtype) = jobs.first().map(|job| job.dtype) else { return Ok((Texts::new(), 0)) };
    let phase = Phase { checkpoint, dtype };
    let watch = Watch::new(stop, listener);
    let (mut texts, mut passes) = (Texts::new(), 0);
    let mut rest = &prompts[..];
    while !rest.is_empty() {
        let budget = device.free_bytes().unwrap_or(u64::MAX).min(target.budget_bytes());
        let (count, streaming, layout) = phase.most_within(rest, device, target, budget)?;
        let (now, later) = rest.split_at(count);
        watch.begin("text", checkpoint.text_encoder.config.num_layers as u64, None);
        device.reserve(layout.peak_bytes)?;
        let arena = Arena::replay(layout);
        let embeds = phase.run(&Context::new(&**device, &arena, &watch), now, streaming);
        device.release();
        texts.extend(now.iter().map(|prompt| prompt.to_vec()).zip(embeds?));
        rest = later;
        passes += 1;
    }
    watch.end();
    Ok((texts, passes))
}

/// The text phase by itself.
struct Phase<'a> {
    checkpoint: &'a Checkpoint,
    dtype: DType,
}

impl Phase<'_> {
    /// As many of the prompts as there is room for, with the fastest way to place the weights beside
    /// them, and the layout.
    fn most_within(
        &self,
        prompts: &[&[usize]],
        device: &Arc<dyn Device>,
        target: &Target,
        budget: u64,
    ) -> Result<(usize, Streaming, Arc<Layout>), EngineError> {
        let mut count = prompts.len();
        loop {
            let mut least = u64::MAX;
            for streaming in [Streaming::RESIDENT, Streaming::through(2), Streaming::through(1)] {
                let layout = self.layout(&prompts[..count], device, streaming)?;
                let needed = target.reserved_bytes(&layout, device.profile().scratch_bytes);
                if needed <= budget {
                    return Ok((count, streaming, Arc::new(layout)));
                }
                least = needed.min(least);
            }
            if count == 1 {
                let (required_bytes, available_bytes) = (least, budget);
                return Err(EngineError::DoesNotFit {
                    required_bytes,
                    available_bytes,
                    tiled: false,
                });
            }
            count = count.div_ceil(2);
        }
    }

    fn layout(
        &self,
        prompts: &[&[usize]],
        device: &Arc<dyn Device>,
        streaming: Streaming,
    ) -> Result<Layout, EngineError> {
        let profile = device.profile();
        let dry = DryDevice::new(profile.clone());
        let arena = Arena::record(profile.alignment);
        self.run(&Context::new(&dry, &arena, &Unwatched), prompts, streaming)?;
        Ok(solve(&arena.into_trace()?))
    }

    /// The embeddings, on the host.
    fn run(
        &self,
        cx: &Context<'_>,
        prompts: &[&[usize]],
        streaming: Streaming,
    ) -> Result<Vec<Vec<f32>>, Error> {
        cx.arena.phase("text")?;
        let component = &self.checkpoint.text_encoder;
        let usage = Use { blocks: component.config.encoder_blocks(), passes: 1 };
        let placed = Placed::new(*cx, &component.weights, self.dtype, usage, streaming)?;
        let embeds = t5::encode(cx, &placed, &component.config, prompts, self.dtype)?;
        drop(placed);
        let is_dry = cx.arena.is_recording();
        let fetch = |embeds: Tensor| {
            let elements = if is_dry { 0 } else { embeds.shape().elements() };
            let mut values = vec![0.0; elements];
            cx.device.download(&embeds, &mut values)?;
            Ok(values)
        };
        let values = embeds.into_iter().map(fetch).collect::<Result<_, Error>>()?;
        cx.device.finish()?;
        Ok(values)
    }
}
