//! Everything over HTTP.

mod answer;
mod body;
mod content;
mod create;
mod error;
mod events;
mod guard;
mod info;
mod multipart;
mod openapi;
mod page;
mod pattern;
mod range;
mod receive;
mod session;
mod videos;

pub(crate) use answer::Http;
pub(crate) use error::ApiError;

use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// All routes, with what stands before and behind them.
pub(crate) fn router(state: &Http) -> serde_json::Result<Router> {
    let described = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(create::create, videos::list))
        .routes(routes!(videos::retrieve, videos::delete))
        .routes(routes!(videos::cancel))
        .routes(routes!(content::content))
        .routes(routes!(events::of_one))
        .routes(routes!(events::of_all))
        .routes(routes!(info::plan))
        .routes(routes!(info::models))
        .routes(routes!(info::model))
        .routes(routes!(info::gpus))
        .routes(routes!(info::presets))
        .routes(routes!(info::health))
        .routes(routes!(info::numbers))
        .routes(routes!(session::begin, session::end));
    let (router, api) = described.split_for_parts();
    let shared = state.shared();
    let config = &shared.config;
    let api = Arc::new(serde_json::to_value(&api)?);
    let description = move |state: answer::State| async move { describe(&state, api).await };
    let router = router
        .route("/openapi.json", get(description))
        .route("/v1/models/{owner}/{name}", get(info::published_model))
        .route("/docs", get(page::to_docs))
        .route("/docs/", get(page::docs_index))
        .route("/docs/{*file}", get(page::docs))
        .route("/", get(page::index))
        .route("/{*file}", get(page::asset))
        .fallback(|| async { page::nothing() })
        .layer(map_response(with_body))
        .layer(from_fn_with_state(state.clone(), guard::admit))
        .with_state(state.clone());
    let router = match cors(&config.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    Ok(router.layer(from_fn_with_state(state.clone(), guard::finish)))
}

/// The API's description, with the models and presets that there are now.
async fn describe(state: &Http, api: Arc<Value>) -> answer::Answer<Value> {
    let described = answer::blocking(state, move |shared| {
        let models = shared.backend.models().into_iter().filter(|model| model.available);
        let facts = openapi::Facts {
            max_prompt_chars: shared.config.max_prompt_chars,
            wants_token: shared.config.token.is_some(),
            models: models.map(|model| model.id).collect(),
            presets: shared.backend.presets().into_iter().map(|preset| preset.name).collect(),
        };
        Ok(openapi::finished((*api).clone(), &facts))
    });
    Ok(Json(described.await?))
}

/// Gives a wrong method an answer of the usual form.
async fn with_body(response: Response) -> Response {
    if response.status() != axum::http::StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let message = "this cannot be done here; the Allow header says what can, and /docs how";
    let error = ApiError::new(response.status(), "method_not_allowed", message);
    let mut answer = error.into_response();
    if let Some(allowed) = response.headers().get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    answer
}

/// Lets pages of these origins use the API; they have to show the token, for cookies are not theirs.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::RANGE,
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([header::RETRY_AFTER, header::CONTENT_RANGE, header::ETAG])
        .max_age(Duration::from_secs(600));
    Some(layer)
}
