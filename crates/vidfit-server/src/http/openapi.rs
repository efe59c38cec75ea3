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

/// What the description says of this server.
pub(crate) struct Facts {
    /// Most characters of a prompt.
    pub(crate) max_prompt_chars: usize,
    /// Whether a token is wanted.
    pub(crate) wants_token: bool,
    /// The models that an order can name.
    pub(crate) models: Vec<String>,
    /// The presets that it can.
    pub(crate) presets: Vec<String>,
}

/// The finished description, as JSON.
pub(crate) fn finished(mut api: Value, facts: &Facts) -> Value {
    api["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer" },
        "session": { "type": "apiKey", "in": "cookie", "name": "vidfit_session" },
    });
    if facts.wants_token {
        api["security"] = json!([{ "token": [] }, { "session": [] }]);
    }
    let schemas = &mut api["components"]["schemas"];
    schemas["OrderJson"] = order(facts, false, Form::Json);
    schemas["OrderForm"] = order(facts, false, Form::Multipart);
    schemas["PlanJson"] = order(facts, true, Form::Json);
    schemas["PlanForm"] = order(facts, true, Form::Multipart);
    let paths = api["paths"].as_object_mut().into_iter().flatten();
    for operation in paths.filter_map(|(_, path)| path.as_object_mut()).flatten() {
        if let Some(responses) = operation.1.get_mut("responses").and_then(Value::as_object_mut) {
            add_common(responses, facts.wants_token);
        }
    }
    api
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

/// How an order is spelled.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Json,
    Multipart,
}

impl Form {
    /// A field that may be missing; in JSON, null is as good.
    fn optional(self, about: &str, mut kinds: Vec<Value>) -> Value {
        if self == Form::Json {
            kinds.push(json!({ "type": "null" }));
        }
        json!({ "description": about, "anyOf": kinds })
    }

    fn text(self, about: &str, pattern: &str, max: usize) -> Value {
        let text = json!({ "type": "string", "pattern": pattern, "maxLength": max });
        self.optional(about, vec![text])
    }

    /// One of these, if there are any.
    fn choice(self, about: &str, choices: &[String]) -> Value {
        if choices.is_empty() {
            return self.text(about, NAME, 256);
        }
        self.optional(about, vec![json!({ "type": "string", "enum": choices })])
    }

    fn whole(self, about: &str, least: i64, most: i64) -> Value {
        let magnitude = whole_pattern(least.max(0).unsigned_abs(), most.unsigned_abs());
        let sign = if least < 0 { "-?" } else { "" };
        let number = json!({ "type": "integer", "minimum": least, "maximum": most });
        let text = json!({ "type": "string", "pattern": format!("^{sign}({magnitude})$") });
        self.optional(about, vec![number, text])
    }

    fn float(self, about: &str, least: f64, most: u32) -> Value {
        let pattern = format!("^({})$", float_pattern(least, most));
        let number = json!({ "type": "number", "minimum": least, "maximum": most });
        self.optional(about, vec![number, json!({ "type": "string", "pattern": pattern })])
    }
}

/// A name: no control characters.
const NAME: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";
/// What a prompt is.
const PROMPT: &str = "What the video shows";
/// Something to start from, in base64.
const DATA_URL: &str = "^data:[^,]*;base64,([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}==|\
                        [A-Za-z0-9+/]{3}=)$";

/// The schema of an order.
fn order(facts: &Facts, plan: bool, form: Form) -> Value {
    let side = whole_pattern(16, 16_384);
    let most = facts.max_prompt_chars;
    let prompt = json!({ "type": "string", "minLength": 1, "maxLength": most,
        "pattern": "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$" });
    let mut fields = json!({
        "prompt": if plan { form.optional(PROMPT, vec![prompt]) } else {
            json!({ "description": PROMPT, "allOf": [prompt] })
        },
        "model": form.choice("The model's id; see /v1/models", &facts.models),
        "seconds": form.float("How long the video is; num_frames goes before it", 0.1, 3600),
        "size": form.text("Width x height, such as 720x480; width and height go before it", &format!("^({side})x({side})$"), 11),
        "width": form.whole("Pixels", 16, 16_384),
        "height": form.whole("Pixels", 16, 16_384),
        "num_frames": form.whole("Frames", 1, 100_000),
        "fps": form.float("Frames per second", 0.1, 240),
        "num_inference_steps": form.whole("Denoising steps", 1, 1000),
        "guidance_scale": form.float("Scale of classifier-free guidance", 0.0, 1000),
        "seed": form.whole("The same seed makes the same video", 0, MAX_SEED as i64),
        "negative_prompt": form.text("What the video is not to show", "^[^\\u0000]*$", most),
        "lora": form.text("A LoRA that the server has, perhaps with :scale", NAME, 256),
        "preset": form.choice("A preset; see /v1/presets", &facts.presets),
        "strength": form.float("How much of the video that it starts from is made anew", 0.0, 1),
        "priority": form.whole("Higher goes first", -100, 100),
    });
    if plan {
        let tasks = ["t2v", "i2v", "v2v"].map(str::to_owned);
        fields["task"] = form.choice("What the video would start from", &tasks);
    } else {
        for (field, about) in REFERENCES {
            let url = json!({ "type": "string", "pattern": DATA_URL });
            fields[field] = match form {
                Form::Json => {
                    let object = json!({ "type": "object", "required": ["image_url"],
                        "properties": { "image_url": url }, "additionalProperties": false });
                    form.optional(about, vec![url, object])
                }
                Form::Multipart => {
                    json!({ "type": "string", "format": "binary", "description": about })
                }
            };
        }
    }
    let required = if plan { json!([]) } else { json!(["prompt"]) };
    let mut schema = json!({ "type": "object", "required": required, "properties": fields,
        "additionalProperties": false });
    if form == Form::Json && !plan {
        schema["not"] = json!({ "required": ["input_reference", "video_reference"] });
    }
    schema
}

const REFERENCES: [(&str, &str); 2] = [
    ("input_reference", "An image (PNG, JPEG, WebP) or a video (MP4, GIF, WebM) to start from"),
    ("video_reference", "A video to start from"),
];
