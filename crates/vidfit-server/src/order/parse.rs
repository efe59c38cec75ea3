//! From what came over the wire to an [`Order`].

use super::field::{bad, number, shortened, text};
use super::{Order, Task};
use crate::backend::Refusal;
use serde_json::{Map, Value};

/// What an order is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most characters of a prompt.
    pub(crate) prompt_chars: usize,
}

/// An order, with what is beside it in the same body.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// The order itself.
    pub(crate) order: Order,
    /// What it would start from: only a plan says so.
    pub(crate) task: Option<Task>,
    /// A `data:` URL of an image or a video to start from, with the field it came in.
    pub(crate) data_url: Option<(&'static str, String)>,
}

/// Reads an order from the fields of a JSON object or a form. For a plan, the prompt may be missing.
///
/// A field that is null is as good as missing.
///
/// # Errors
///
/// A [`Refusal`] that names the field.
pub(crate) fn parse(
    fields: Map<String, Value>,
    limits: Limits,
    plan: bool,
) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted::default();
    let mut size = None;
    let order = &mut wanted.order;
    let mut prompted = plan;
    for (name, value) in fields {
        match name.as_str() {
            name if value.is_null() && is_known(name, plan) => {}
            "prompt" => {
                order.prompt = prompt(&name, value, limits)?;
                prompted = true;
            }
            "negative_prompt" => order.negative_prompt = Some(prompt(&name, value, limits)?),
            "model" => order.model = Some(word(&name, value)?),
            "preset" => order.preset = Some(word(&name, value)?),
            "lora" => order.lora = Some(word(&name, value)?),
            "seconds" => order.seconds = Some(number(&name, value, 0.1, 3600.0)?),
            "size" => size = Some(pixels(&text(&name, value)?)?),
            "width" => order.width = Some(number(&name, value, 16, 16_384)?),
            "height" => order.height = Some(number(&name, value, 16, 16_384)?),
            "num_frames" => order.num_frames = Some(number(&name, value, 1, 100_000)?),
            "fps" => order.fps = Some(number(&name, value, 0.1, 240.0)?),
            "num_inference_steps" => {
                order.num_inference_steps = Some(number(&name, value, 1, 1000)?);
            }
            "guidance_scale" => order.guidance_scale = Some(number(&name, value, 0.0, 1000.0)?),
            "strength" => order.strength = Some(number(&name, value, 0.0, 1.0)?),
            "seed" => order.seed = Some(number(&name, value, 0, MAX_SEED)?),
            "priority" => order.priority = number(&name, value, -100, 100)?,
            "input_reference" if !plan => {
                wanted.data_url = Some(("input_reference", url(&name, value)?))
            }
            "video_reference" if !plan => {
                wanted.data_url = Some(("video_reference", url(&name, value)?))
            }
            "task" if plan => wanted.task = Some(task(&name, value)?),
            _ => {
                let message =
                    format!("there is no field \"{}\"; /docs lists them", shortened(&name));
                return Err(Refusal::new("unknown_field", message).about(&shortened(&name)));
            }
        }
    }
    if let Some((width, height)) = size {
        order.width.get_or_insert(width);
        order.height.get_or_insert(height);
    }
    if !prompted {
        return Err(
            Refusal::new("missing_field", "prompt: say what the video shows").about("prompt")
        );
    }
    Ok(wanted)
}

/// Whether an order has such a field.
fn is_known(name: &str, plan: bool) -> bool {
    match name {
        "task" => plan,
        "input_reference" | "video_reference" => !plan,
        "prompt" | "negative_prompt" | "model" | "preset" | "lora" => true,
        "seconds" | "size" | "width" | "height" | "num_frames" | "fps" => true,
        "num_inference_steps" | "guidance_scale" | "strength" | "seed" | "priority" => true,
        _ => false,
    }
}

/// The largest seed that every program reads as the number it is.
pub(crate) const MAX_SEED: u64 = (1 << 53) - 1;

fn prompt(name: &str, value: Value, limits: Limits) -> Result<String, Refusal> {
    let prompt = text(name, value)?;
    let chars = prompt.chars().count();
    if chars > limits.prompt_chars {
        let most = limits.prompt_chars;
        return Err(bad(name, format!("{chars} characters, and at most {most} are taken")));
    }
    if name == "prompt" && prompt.trim().is_empty() {
        return Err(bad(name, "it is empty: say what the video shows"));
    }
    Ok(prompt)
}

/// A name.
fn word(name: &str, value: Value) -> Result<String, Refusal> {
    let word = text(name, value)?;
    if word.is_empty() || word.chars().count() > 256 || word.chars().any(char::is_control) {
        return Err(bad(name, "a name of 1 to 256 characters is wanted"));
    }
    Ok(word)
}

fn pixels(size: &str) -> Result<(u32, u32), Refusal> {
    let read = |side: &str| {
        let digits = !side.starts_with('0') && side.bytes().all(|byte| byte.is_ascii_digit());
        side.parse().ok().filter(|side| digits && (16..=16_384).contains(side))
    };
    let sides =
        size.split_once('x').and_then(|(width, height)| Some((read(width)?, read(height)?)));
    sides.ok_or_else(|| {
        bad("size", format!("\"{}\" is not of the form 720x480, width first", shortened(size)))
    })
}

fn task(name: &str, value: Value) -> Result<Task, Refusal> {
    match text(name, value)?.as_str() {
        "t2v" => Ok(Task::T2v),
        "i2v" => Ok(Task::I2v),
        "v2v" => Ok(Task::V2v),
        other => Err(bad(name, format!("t2v, i2v or v2v is wanted, not \"{}\"", shortened(other)))),
    }
}

/// A `data:` URL, by itself or as `image_url` of an object.
fn url(name: &str, value: Value) -> Result<String, Refusal> {
    let url = match value {
        Value::Object(mut object) if object.len() == 1 => match object.remove("image_url") {
            Some(url) => text(name, url)?,
            None => return Err(bad(name, "an object with nothing but image_url is wanted")),
        },
        Value::Object(_) => {
            return Err(bad(name, "an object with nothing but image_url is wanted"));
        }
        value => text(name, value)?,
    };
    if !url.starts_with("data:") {
        return Err(bad(
            name,
            "a data: URL is wanted (data:image/png;base64,…), as nothing is fetched from elsewhere; \
             or send the file as multipart/form-data",
        ));
    }
    Ok(url)
}
