//! What a plan was chosen over: the plain strategies, and the other way to decode, with their
//! numbers.

use crate::decide::Wanted;
use crate::exit::Failure;
use crate::human::{seconds, size};
use vidfit_engine::planner::{Alternative, Ask, Offload, Rejected};
use vidfit_engine::request::{Job, Request, TilingChoice};

/// Everything that was not taken, and why.
///
/// # Errors
/// As planning.
pub fn of(wanted: &Wanted, decided: &Alternative) -> Result<Vec<Rejected>, Failure> {
    let Job { tiling, encode_tiling, .. } = decided.planned.job;
    let is_tiled = tiling.is_some() || encode_tiling.is_some();
    let mut ways = Vec::new();
    let own = if is_tiled { TilingChoice::On } else { TilingChoice::Off };
    if !wanted.target.profile.reads_host_memory {
        let strategies = [Offload::None, Offload::Model, Offload::Sequential];
        ways.extend(strategies.map(|offload| (offload, own)));
    }
    // That the whole does not fit, the plan has said already.
    if !is_tiled {
        ways.push((wanted.offload, TilingChoice::On));
    }
    ways.retain(|way| *way != (wanted.offload, own));
    let mut rejected = Vec::new();
    for (offload, tiling) in ways {
        rejected.extend(one(wanted, decided, offload, tiling)?);
    }
    Ok(rejected)
}

/// One way, if it is another than the one that was taken.
fn one(
    wanted: &Wanted,
    decided: &Alternative,
    offload: Offload,
    tiling: TilingChoice,
) -> Result<Option<Rejected>, Failure> {
    let mut request = Request { tiling, ..decided.request.clone() };
    let job = &decided.planned.job;
    if let Some(tiles) = job.tiling {
        (request.tile_height, request.tile_width) = (Some(tiles.height), Some(tiles.width));
    }
    if let Some(tiles) = job.encode_tiling {
        request.encode_tile_height = Some(tiles.height);
        request.encode_tile_width = Some(tiles.width);
    }
    let checkpoint = &wanted.models[decided.model].checkpoint;
    let ask = Ask { checkpoint, request: &request, offload, target: &wanted.target };
    let chosen = &decided.planned.plan;
    let is_tiled = job.tiling.is_some() || job.encode_tiling.is_some();
    let adds_tiles = tiling == TilingChoice::On && !is_tiled;
    let what = match adds_tiles {
        true => "decode in tiles".to_owned(),
        false => format!("--offload {offload}"),
    };
    let budget = wanted.target.budget_bytes();
    let (plan, why) = match ask.plan()? {
        Err(refused) => {
            let plan = refused.least.plan;
            let why = format!(
                "too big: takes at least {}, and {} may be used",
                size(plan.device_bytes()),
                size(budget)
            );
            (plan, why)
        }
        Ok(planned) if !adds_tiles && planned.schedule == decided.planned.schedule => {
            return Ok(None);
        }
        Ok(planned) => {
            let plan = planned.plan;
            let why = match (adds_tiles, plan.seconds() - chosen.seconds()) {
                (true, _) => "changes the picture, and nothing needs it: the whole fits".to_owned(),
                (false, more) if more > 0.0 => format!(
                    "slower: {} against {}",
                    seconds(plan.seconds()),
                    seconds(chosen.seconds())
                ),
                (false, _) => "no faster".to_owned(),
            };
            (plan, why)
        }
    };
    Ok(Some(Rejected { what, peak_bytes: plan.device_bytes(), seconds: plan.seconds(), why }))
}
