//! What every command is given: the global arguments and the settings of the program.

use std::path::PathBuf;

use spectemp_telemetry::LogFormat;
use spectemp_types::Plan;

use crate::{
    args::{GlobalArgs, PlanArgs},
    config::Config,
    output::Usage,
};

/// Global arguments and settings.
pub(crate) struct Context {
    /// As given on the command line.
    pub(crate) global: GlobalArgs,
    /// File and environment.
    pub(crate) config: Config,
}

impl Context {
    /// Reads the settings and starts logging.
    pub(crate) fn new(global: GlobalArgs) -> anyhow::Result<Self> {
        let filter = match global.verbose {
            0 => "warn",
            1 => {
                "warn,spectemp=info,spectemp_worker=info,spectemp_store=info,spectemp_video=info,spectemp_model=info,spectemp_remote=info"
            }
            _ => {
                "info,spectemp_worker=debug,spectemp_store=debug,spectemp_video=debug,spectemp_model=debug,spectemp_remote=debug,spectemp_engine=debug"
            }
        };
        let format = if global.log_json { LogFormat::Json } else { LogFormat::Text };
        spectemp_telemetry::init_logs(format, filter)?;
        let config = Config::load(global.config.as_deref())?;
        Ok(Self { global, config })
    }

    /// The home folder.
    pub(crate) fn home_dir(&self) -> anyhow::Result<PathBuf> {
        let flag = self.global.home.as_ref().map(|path| path.display().to_string());
        match self.config.setting("home", flag).value {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(Usage("no home folder: give --home DIR or set SPECTEMP_HOME".to_owned()).into()),
        }
    }

    /// The plan in force: its name from flag, environment, file or default; overrides from the file, then `--set`.
    pub(crate) fn plan(&self, args: &PlanArgs) -> anyhow::Result<Plan> {
        let name = self.config.setting("plan", args.plan.clone()).value.unwrap_or_default();
        self.plan_named(&name, args)
    }

    /// The plan called `name` with the same overrides: for job lines that name a plan of their own.
    pub(crate) fn plan_named(&self, name: &str, args: &PlanArgs) -> anyhow::Result<Plan> {
        let overrides = self.config.set().iter().chain(&args.set).map(String::as_str);
        let plan = Plan::named(name).and_then(|plan| plan.set_all(overrides));
        plan.map_err(|cause| Usage(cause.to_string()).into())
    }
}
