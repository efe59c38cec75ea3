//! What the server has, how it is, and what a job would take.

use super::answer::{Answer, State, blocking, heavy};
use super::error::{ApiError, ErrorBody};
use super::openapi::{PlanForm, PlanJson};
use super::receive::receive_json;
use super::videos::ListWord;
use crate::backend::{Gpu, Model, Preset};
use crate::metrics;
use crate::order::{Limits, parse};
use crate::runner::Message;
use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Says what a job would take, phase by phase, as `vidfit plan --json` does.
///
/// A job that does not fit is answered with `"fits": false`. The prompt may be left away; `task` says
/// what the video would start from.
#[utoipa::path(
    post,
    path = "/v1/plan",
    tag = "server",
    request_body(content((PlanJson = "application/json"), (PlanForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The plan", body = Object),
        (status = 400, description = "It cannot be made at all", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "Neither JSON nor a form", body = ErrorBody),
    )
)]
pub(crate) async fn plan(state: State, headers: HeaderMap, body: Body) -> Answer<Value> {
    let shared = state.shared();
    let fields = receive_json(&shared, &headers, body).await?;
    let limits = Limits { prompt_chars: shared.config.max_prompt_chars };
    let wanted = parse(fields, limits, true).map_err(ApiError::of_fields)?;
    let plan = heavy(&state, move |shared| {
        let plan = shared.backend.plan(&wanted.order, wanted.task.unwrap_or_default());
        plan.map_err(|it| it.for_client(&wanted.order))
    });
    Ok(Json(plan.await?))
}

/// A model, as the list has it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedModel {
    /// Always `model`.
    object: ModelWord,
    #[serde(flatten)]
    model: Model,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ModelWord {
    Model,
}

/// The models.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelList {
    /// Always `list`.
    object: ListWord,
    data: Vec<ListedModel>,
}

/// Lists the models that an order can name, the default first.
#[utoipa::path(get, path = "/v1/models", tag = "server",
    responses((status = 200, description = "The models", body = ModelList)))]
pub(crate) async fn models(state: State) -> Answer<ModelList> {
    let models = blocking(&state, |shared| Ok(shared.backend.models())).await?;
    let listed = |model| ListedModel { object: ModelWord::Model, model };
    Ok(Json(ModelList { object: ListWord::List, data: models.into_iter().map(listed).collect() }))
}

/// Tells of one model.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "server",
    params(("model" = String, Path, description = "The model's id")),
    responses(
        (status = 200, description = "The model", body = ListedModel),
        (status = 404, description = "There is none of this id", body = ErrorBody),
    ))]
pub(crate) async fn model(state: State, Path(id): Path<String>) -> Answer<ListedModel> {
    let models = blocking(&state, |shared| Ok(shared.backend.models())).await?;
    match models.into_iter().find(|model| model.id.eq_ignore_ascii_case(&id)) {
        Some(model) => Ok(Json(ListedModel { object: ModelWord::Model, model })),
        None => {
            let message = "there is no model of this id; GET /v1/models lists them";
            Err(ApiError::not_found(message).about("model"))
        }
    }
}

/// The same for an id whose slash is not escaped, as many clients send it.
pub(crate) async fn published_model(
    state: State,
    Path((owner, name)): Path<(String, String)>,
) -> Answer<ListedModel> {
    model(state, Path(format!("{owner}/{name}"))).await
}

/// A device, as the list has it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedGpu {
    #[serde(flatten)]
    gpu: Gpu,
    /// What vidfit holds of it now: 0 while no job runs and nothing is kept warm.
    held_bytes: u64,
}

/// The devices.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GpuList {
    /// Always `list`.
    object: ListWord,
    data: Vec<ListedGpu>,
}

/// Lists the devices, and what is free of them.
#[utoipa::path(get, path = "/v1/gpus", tag = "server",
    responses((status = 200, description = "The devices", body = GpuList)))]
pub(crate) async fn gpus(state: State) -> Answer<GpuList> {
    let list = blocking(&state, |shared| {
        let held = shared.metrics.held_bytes();
        let listed = |gpu: Gpu| ListedGpu { held_bytes: if gpu.used { held } else { 0 }, gpu };
        Ok(shared.backend.gpus().into_iter().map(listed).collect())
    });
    Ok(Json(GpuList { object: ListWord::List, data: list.await? }))
}

/// The presets.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PresetList {
    /// Always `list`.
    object: ListWord,
    data: Vec<Preset>,
}

/// Lists the presets that an order can name.
#[utoipa::path(get, path = "/v1/presets", tag = "server",
    responses((status = 200, description = "The presets", body = PresetList)))]
pub(crate) async fn presets(state: State) -> Answer<PresetList> {
    let data = blocking(&state, |shared| Ok(shared.backend.presets())).await?;
    Ok(Json(PresetList { object: ListWord::List, data }))
}

/// How the server is.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    /// Always `ok`.
    status: OkWord,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OkWord {
    Ok,
}

/// Says whether the server works; needs no token.
#[utoipa::path(get, path = "/healthz", tag = "server", security(()),
    responses((status = 200, description = "It does", body = Health)))]
pub(crate) async fn health(state: State) -> Answer<Health> {
    blocking(&state, |shared| {
        shared.store.check()?;
        if shared.tell_runner(Message::Wake) {
            return Ok(());
        }
        Err(ApiError::internal(
            "the thread that works on the queue has ended: start the server again",
        ))
    })
    .await?;
    Ok(Json(Health { status: OkWord::Ok }))
}

/// Gives the server's numbers, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, description = "The numbers", body = String, content_type = "text/plain")))]
pub(crate) async fn numbers(state: State) -> Result<impl IntoResponse, ApiError> {
    let text = blocking(&state, |shared| Ok(metrics::text(shared)?)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
