//! The model that is built into the program, which is used where none is named.

use crate::args::JobArgs;
use crate::exit::Failure;
use crate::progress::Shown;
use crate::say::note;
use serde_json::json;
use vidfit_engine::checkpoint::{BuiltIn, CheckpointFolder};
use vidfit_engine::presets::Preset;

/// What it is called on a command line.
pub const NAME: &str = vidfit_demo::NAME;

/// The model.
pub static MODEL: BuiltIn = BuiltIn::new(NAME, vidfit_demo::FILES);

/// How it is sampled where nobody says otherwise: what is `None` is as for every other model. Settings,
/// presets and the command line go before it. More guidance than this makes its shapes ragged.
pub fn sampling() -> Preset {
    Preset { guidance: Some(2.5), ..Preset::default() }
}

/// What to say where no model was named.
///
/// # Errors
/// If the program was built with a broken one.
fn notice() -> Result<String, Failure> {
    let CheckpointFolder { transformer, vae, .. } = CheckpointFolder::read(&MODEL)?;
    let (config, ratio) = (&transformer.config, vae.config.spatial_ratio());
    Ok(format!(
        "no --model given: using the built-in {NAME} model ({}×{}, {} frames; it knows coloured \
         shapes that move). For real videos: --model 5b; see `vidfit models list`",
        config.sample_width * ratio,
        config.sample_height * ratio,
        config.sample_frames
    ))
}

/// Notes that the job is this model's, if it names none.
///
/// # Errors
/// As [`announce`].
pub fn note_where_unnamed(job: &JobArgs) -> Result<(), Failure> {
    if job.model.is_none() {
        note!("{}", notice()?);
    }
    Ok(())
}

/// Says to who waits for a video that it is this model's.
///
/// # Errors
/// If the program was built with a broken one.
pub fn announce(shown: Shown) -> Result<(), Failure> {
    shown.say(&notice()?);
    shown.event(json!({ "event": "built_in_model", "model": NAME }));
    Ok(())
}
