//! A small job, and a folder for its runs.

use crate::support::Case;
use crate::support::card::target;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use vidfit_cogvideox::noise::Generator;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::RunReport;
use vidfit_engine::planner::{Offload, Planned, SavedPlan, replan};
use vidfit_engine::request::{Job, Request, TilingChoice};
use vidfit_engine::runs::{
    MachineRecord, RECORD_VERSION, Run, RunId, RunRecord, Runs, Standing, settled,
};
use vidfit_engine::state::RunState;
use vidfit_tensor::DType;

/// A small job, and a folder for its runs.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub runs: Runs,
    pub checkpoint: Checkpoint,
    pub prepared: Planned,
    pub record: RunRecord,
    pub plan: SavedPlan,
}

pub const STEPS: usize = 4;

impl Place {
    pub fn new() -> Place {
        let case = Case::named("5b-dpm");
        let checkpoint = case.open();
        let request = Request {
            frames: Some(9),
            height: Some(16),
            width: Some(16),
            steps: STEPS,
            tiling: TilingChoice::Off,
            ..case.request(DType::F32)
        };
        let (job, _) = Job::new(&checkpoint, &request).unwrap();
        let (offload, large) = (Offload::Auto, target(1 << 30, 1));
        let planned = replan(&checkpoint, &job, offload, &large, None).unwrap();
        let planned = planned.unwrap_or_else(|_| panic!("it does not fit"));
        let plan = SavedPlan::of(&checkpoint, "tiny", &request, &planned);
        let folder = tempfile::tempdir().unwrap();
        let record = RunRecord {
            version: RECORD_VERSION,
            vidfit: "0".into(),
            began_unix_ms: 1,
            model: "tiny".into(),
            model_folder: checkpoint.place.path(),
            model_identity: job.model.clone(),
            request: settled(&request, &job),
            steps: STEPS,
            frames: job.frames,
            height: job.height,
            width: job.width,
            tiling: job.tiling,
            encode_tiling: job.encode_tiling,
            output: folder.path().join("video.gif"),
            output_is_named: true,
            fps: 8.0,
            crf: 18,
            save_tensors: None,
            machine: MachineRecord {
                device: "cpu".into(),
                threads: 1,
                vram_budget_bytes: None,
                buffer_bytes: None,
                ram_bytes: None,
                offload,
            },
            keeps: true,
            inputs: vec![],
        };
        let runs = Runs::in_folder(folder.path().join("runs"));
        Place { folder, runs, checkpoint, prepared: planned, record, plan }
    }

    pub fn begin(&self) -> Run {
        self.runs.begin(&self.record, &self.plan, None).unwrap()
    }

    pub fn embeds(&self) -> usize {
        let tokens: usize = self.prepared.job.prompts.iter().map(Vec::len).sum();
        tokens * self.checkpoint.text_encoder.config.d_model
    }

    /// A state after so many steps, of no particular numbers.
    pub fn state(&self, steps_done: usize) -> RunState {
        let job = &self.prepared.job;
        let latents = vec![0.5; job.latent_elements()];
        RunState {
            job: RunState::key(job),
            steps_done,
            embeds: vec![0.25; self.embeds()],
            previous: if steps_done > 0 { latents.clone() } else { vec![] },
            latents,
            generator: Generator::seed(job.seed).state(),
            ..RunState::default()
        }
    }

    pub fn standing(&self, id: &RunId) -> Standing {
        self.runs.look(id).standing
    }

    pub fn report(&self, outcome: &str) -> RunReport {
        RunReport::of_plan(outcome, Some("so it is".into()), None)
    }

    /// A run that has come to its end, with its name.
    pub fn done(&self) -> (RunId, PathBuf) {
        let run = self.begin();
        run.save(&self.state(STEPS)).unwrap();
        fs::create_dir(run.path("frames")).unwrap();
        fs::write(run.path("frames/frame_00000.png"), [0; 1000]).unwrap();
        fs::write(&self.record.output, [1; 500]).unwrap();
        run.keep_video(&self.record.output).unwrap();
        run.end(&self.report("done")).unwrap();
        (run.id().clone(), run.folder().to_owned())
    }
}

pub fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes a file or a folder look as if nothing had been written to it for so many days.
pub fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 86_400);
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| age(&entry.unwrap().path(), days));
    }
    fs::File::open(path).unwrap().set_modified(then).unwrap();
}
