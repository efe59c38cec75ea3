//! The API's description (OpenAPI 3.1).
//!
//! Routes and answers describe themselves; the fields of an order, which may be numbers or texts, are
//! described here, as exactly as they are read in `order/parse.rs`.

use super::pattern::{float_pattern, whole_pattern};
use crate::order::MAX_SEED;
use serde_json::{Map, Value, json};
use utoipa::{OpenApi, ToSchema};

/// The body of `POST /v1/videos`; its schema is [`order`].
#[derive(ToSchema)]
pub(crate) struct OrderJson;
/// The same as a form, with a file.
#[derive(ToSchema)]
pub(crate) struct OrderForm;
/// The body of `POST /v1/plan`.
#[derive(ToSchema)]
pub(crate) struct PlanJson;
/// The same as a form.
#[derive(ToSchema)]
pub(crate) struct PlanForm;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vidfit",
        description = "Videos by CogVideoX, made one after the other, each within the memory that \
            there is. The videos part is OpenAI's, with more fields: its clients work here.",
    ),
    tags(
        (name = "videos", description = "Ordering videos, and what becomes of them"),
        (name = "server", description = "What the server has, and how it is"),
        (name = "session", description = "Cookies instead of tokens, for browsers"),
    )
)]
struct Base;

/// What the routes are added to.
pub(crate) fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// The finished description, as JSON.
pub(crate) fn finished(
    api: &utoipa::openapi::OpenApi,
    max_prompt_chars: usize,
    wants_token: bool,
) -> serde_json::Result<Value> {
    let mut api = serde_json::to_value(api)?;
    api["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer" },
        "session": { "type": "apiKey", "in": "cookie", "name": "vidfit_session" },
    });
    if wants_token {
        api["security"] = json!([{ "token": [] }, { "session": [] }]);
    }
    let schemas = &mut api["components"]["schemas"];
    for (name, schema) in [
        ("OrderJson", order(max_prompt_chars, Kind::Json)),
        ("OrderForm", order(max_prompt_chars, Kind::Form)),
        ("PlanJson", order(max_prompt_chars, Kind::Plan)),
        ("PlanForm", order(max_prompt_chars, Kind::Plan)),
    ] {
        schemas[name] = schema;
    }
    let paths = api["paths"].as_object_mut().into_iter().flatten();
    for operation in paths.filter_map(|(_, path)| path.as_object_mut()).flatten() {
        if let Some(responses) = operation.1.get_mut("responses").and_then(Value::as_object_mut) {
            add_common(responses, wants_token);
        }
    }
    Ok(api)
}

/// Answers that every route may give.
fn add_common(responses: &mut Map<String, Value>, wants_token: bool) {
    let common = [
        ("400", "The request is not as it should be"),
        ("401", "The token is missing or wrong"),
        ("403", "The host or the origin is not allowed"),
        ("408", "The request did not come in time"),
        ("500", "Something went wrong in the server"),
        (
            "503",
            "The server has no room or too many connections; Retry-After says when to try again",
        ),
    ];
    for (status, description) in common {
        if status == "401" && !wants_token {
            continue;
        }
        responses.entry(status).or_insert_with(|| {
            json!({
                "description": description,
                "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/ErrorBody" } } },
            })
        });
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Json,
    Form,
    Plan,
}

/// The schema of an order.
fn order(max_prompt_chars: usize, kind: Kind) -> Value {
    let name = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";
    let side = whole_pattern(16, 16_384);
    let prompt = json!({ "type": "string", "minLength": 1, "maxLength": max_prompt_chars,
        "pattern": "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$" });
    let text = |about: &str, pattern: &str, max: usize| {
        optional(about, vec![json!({ "type": "string", "pattern": pattern, "maxLength": max })])
    };
    let mut fields = json!({
        "model": text("The model's id; see /v1/models", name, 256),
        "seconds": float("How long the video is; num_frames goes before it", 0.1, 3600),
        "size": text("Width x height, such as 720x480", &format!("^({side})x({side})$"), 11),
        "width": whole("Pixels", 16, 16_384),
        "height": whole("Pixels", 16, 16_384),
        "num_frames": whole("Frames", 1, 100_000),
        "fps": float("Frames per second", 0.1, 240),
        "num_inference_steps": whole("Denoising steps", 1, 1000),
        "guidance_scale": float("Scale of classifier-free guidance", 0.0, 1000),
        "seed": whole("The same seed makes the same video", 0, MAX_SEED as i64),
        "negative_prompt": text("What the video is not to show", "^[^\\u0000]*$", max_prompt_chars),
        "lora": text("A LoRA that the server has, perhaps with :scale", name, 256),
        "preset": text("A preset; see /v1/presets", name, 256),
        "strength": float("How much of the video that it starts from is made anew", 0.0, 1),
        "priority": whole("Higher goes first", -100, 100),
    });
    let mut described = prompt;
    described["description"] = "What the video shows".into();
    fields["prompt"] = described;
    match kind {
        Kind::Plan => {
            fields["task"] = optional(
                "What the video would start from",
                vec![json!({ "type": "string", "enum": ["t2v", "i2v", "v2v"] })],
            );
        }
        Kind::Json => {
            let url =
                json!({ "type": "string", "pattern": "^data:[^,]*;base64,[A-Za-z0-9+/]+=*$" });
            let object = json!({ "type": "object", "required": ["image_url"],
                "properties": { "image_url": url }, "additionalProperties": false });
            for (field, about) in REFERENCES {
                fields[field] = optional(about, vec![url.clone(), object.clone()]);
            }
        }
        Kind::Form => {
            for (field, about) in REFERENCES {
                fields[field] =
                    json!({ "type": "string", "format": "binary", "description": about });
            }
        }
    }
    let required = if kind == Kind::Plan { json!([]) } else { json!(["prompt"]) };
    json!({ "type": "object", "required": required, "properties": fields,
        "additionalProperties": false })
}

const REFERENCES: [(&str, &str); 2] = [
    ("input_reference", "An image (PNG, JPEG, WebP) or a video (MP4, GIF, WebM) to start from"),
    ("video_reference", "A video to start from"),
];

/// A field that may be missing or null.
fn optional(about: &str, mut kinds: Vec<Value>) -> Value {
    kinds.push(json!({ "type": "null" }));
    json!({ "description": about, "oneOf": kinds })
}

fn whole(about: &str, least: i64, most: i64) -> Value {
    let magnitude = whole_pattern(least.max(0).unsigned_abs(), most.unsigned_abs());
    let sign = if least < 0 { "-?" } else { "" };
    let pattern = format!("^{sign}({magnitude})$");
    optional(
        about,
        vec![
            json!({ "type": "integer", "minimum": least, "maximum": most }),
            json!({ "type": "string", "pattern": pattern }),
        ],
    )
}

fn float(about: &str, least: f64, most: u32) -> Value {
    let pattern = format!("^({})$", float_pattern(least, most));
    optional(
        about,
        vec![
            json!({ "type": "number", "minimum": least, "maximum": most }),
            json!({ "type": "string", "pattern": pattern }),
        ],
    )
}
