//! Settings of the program: flag over environment over file over default, and `spectemp config show`, which says what
//! came from where. (The settings of a plan are `spectemp_types::Settings`; the table `[set]` overrides them.)

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;
use comfy_table::{Table, presets};
use serde::Serialize;
use toml::Value;

use crate::{
    context::Context,
    output::{self, Usage},
};

/// Settings of the program.
#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting, its value and where it comes from.
    Show {
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// One setting of the program.
pub(crate) struct Key {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// Its environment variable.
    pub(crate) env: &'static str,
    /// What it is.
    pub(crate) about: &'static str,
}

/// All settings of the program.
pub(crate) const KEYS: [Key; 14] = [
    Key { name: "home", env: "SPECTEMP_HOME", about: "folder of ledger, objects and caches" },
    Key { name: "target", env: "SPECTEMP_TARGET", about: "target model" },
    Key { name: "draft", env: "SPECTEMP_DRAFT", about: "draft model" },
    Key { name: "target_api_key", env: "SPECTEMP_TARGET_API_KEY", about: "key of a target on a server" },
    Key { name: "draft_api_key", env: "SPECTEMP_DRAFT_API_KEY", about: "key of a draft on a server" },
    Key {
        name: "speculate",
        env: "SPECTEMP_SPECULATE",
        about: "who guesses for the target: off, lookup, sparse, draft, draft-density",
    },
    Key { name: "plan", env: "SPECTEMP_PLAN", about: "named settings of the loop" },
    Key { name: "device", env: "SPECTEMP_DEVICE", about: "cpu or cuda[:N]" },
    Key { name: "dtype", env: "SPECTEMP_DTYPE", about: "f32, bf16, q8_0 or q4k" },
    Key { name: "threads", env: "SPECTEMP_THREADS", about: "threads of the CPU kernels" },
    Key {
        name: "kv_cache",
        env: "SPECTEMP_KV_CACHE",
        about: "memory for keys and values, such as 4G; unset: a quarter of the free memory",
    },
    Key { name: "concurrency", env: "SPECTEMP_CONCURRENCY", about: "jobs that run at once" },
    Key { name: "cache_bytes", env: "SPECTEMP_CACHE_BYTES", about: "limit of the caches on disk" },
    Key {
        name: "timeout_s",
        env: "SPECTEMP_TIMEOUT_S",
        about: "seconds that one read of an object may take",
    },
];

/// Settings of models on servers that are never printed.
const SECRETS: [&str; 2] = ["target_api_key", "draft_api_key"];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
    /// Built in.
    Default,
    /// Nowhere.
    Unset,
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    /// The text of the value.
    pub(crate) value: Option<String>,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// The settings file, read, and the environment.
#[derive(Debug, Default)]
pub(crate) struct Config {
    file: Option<PathBuf>,
    values: BTreeMap<String, String>,
    set: Vec<String>,
    environment: BTreeMap<&'static str, String>,
}

impl Config {
    /// Reads `explicit`, or the default file where there is one, and the environment.
    ///
    /// # Errors
    /// A file that was named but is not there, that does not parse, or that holds an unknown key.
    pub(crate) fn load(explicit: Option<&Path>) -> anyhow::Result<Self> {
        let named =
            explicit.map(Path::to_owned).or_else(|| std::env::var_os("SPECTEMP_CONFIG").map(PathBuf::from));
        let file = match named {
            Some(path) => Some(path),
            None => default_file().filter(|path| path.is_file()),
        };
        let mut config = Self { file: file.clone(), ..Self::default() };
        if let Some(path) = file {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("settings file {} cannot be read", path.display()))?;
            config.read(&text).with_context(|| format!("settings file {}", path.display()))?;
        }
        for key in &KEYS {
            if let Some(value) = std::env::var(key.env).ok().filter(|value| !value.is_empty()) {
                config.environment.insert(key.name, value);
            }
        }
        Ok(config)
    }

    pub(crate) fn read(&mut self, text: &str) -> anyhow::Result<()> {
        let table: toml::Table = text.parse()?;
        for (name, value) in table {
            if name == "set" {
                let Value::Table(set) = value else { anyhow::bail!("`set` must be a table, as in [set]") };
                self.set = set.into_iter().map(|(key, value)| format!("{key}={}", plain(&value))).collect();
            } else if KEYS.iter().any(|key| key.name == name) {
                self.values.insert(name, plain(&value));
            } else {
                let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                anyhow::bail!("unknown key {name:?}: use one of {}, or the table [set]", known.join(", "));
            }
        }
        Ok(())
    }

    /// The value of `name`, where `flag` is what the command line says.
    pub(crate) fn setting(&self, name: &str, flag: Option<String>) -> Setting {
        let found =
            |value: Option<String>, source: Source| value.map(|value| Setting { value: Some(value), source });
        found(flag, Source::Flag)
            .or_else(|| found(self.environment.get(name).cloned(), Source::Environment))
            .or_else(|| found(self.values.get(name).cloned(), Source::File))
            .or_else(|| found(default_value(name), Source::Default))
            .unwrap_or(Setting { value: None, source: Source::Unset })
    }

    /// The value of `name` as a number of at least `least`.
    ///
    /// # Errors
    /// A value that is no such number.
    pub(crate) fn number(&self, name: &str, flag: Option<u64>, least: u64) -> anyhow::Result<u64> {
        let text = self.setting(name, flag.map(|n| n.to_string())).value.unwrap_or_default();
        let number = text.parse::<u64>().ok().filter(|number| *number >= least);
        number.ok_or_else(|| {
            Usage(format!("{name} is {text:?}, but must be a whole number from {least}")).into()
        })
    }

    /// Overrides of plan settings from the file, as `key=value`.
    pub(crate) fn set(&self) -> &[String] {
        &self.set
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn default_file() -> Option<PathBuf> {
    directories::BaseDirs::new().map(|dirs| dirs.config_dir().join("spectemp").join("config.toml"))
}

fn default_value(name: &str) -> Option<String> {
    match name {
        "home" => {
            directories::BaseDirs::new().map(|dirs| dirs.data_dir().join("spectemp").display().to_string())
        }
        "speculate" => Some("off".to_owned()),
        "plan" => Some("paper16".to_owned()),
        "device" => Some("cpu".to_owned()),
        "dtype" => Some("f32".to_owned()),
        "threads" => Some(std::thread::available_parallelism().map_or(1, usize::from).to_string()),
        "concurrency" => Some("4".to_owned()),
        "cache_bytes" => Some((8_u64 << 30).to_string()),
        "timeout_s" => Some("30".to_owned()),
        _ => None,
    }
}

#[derive(Serialize)]
struct Row {
    key: String,
    value: Option<String>,
    source: Source,
    environment: Option<&'static str>,
    about: String,
}

/// Runs `spectemp config`.
pub(crate) fn run(command: ConfigCommand, context: &Context) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Show { json } = command;
    let rows = rows(context)?;
    if json {
        output::print_json(&serde_json::json!({ "file": context.config.file, "settings": rows }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["setting", "value", "from", "environment", "what it is"]);
    for row in &rows {
        let from = serde_json::to_value(&row.source)?;
        table.add_row([
            row.key.as_str(),
            row.value.as_deref().unwrap_or("-"),
            from.as_str().unwrap_or_default(),
            row.environment.unwrap_or("-"),
            row.about.as_str(),
        ]);
    }
    let file = match (&context.config.file, default_file()) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(path)) => format!("none (would be {})", path.display()),
        (None, None) => "none".to_owned(),
    };
    output::print(&format!("settings file: {file}\n{}", table.trim_fmt()))?;
    Ok(ExitCode::SUCCESS)
}

fn rows(context: &Context) -> anyhow::Result<Vec<Row>> {
    let home = context.global.home.as_ref().map(|path| path.display().to_string());
    let mut rows: Vec<Row> = KEYS
        .iter()
        .map(|key| {
            let setting = context.config.setting(key.name, home.clone().filter(|_| key.name == "home"));
            let secret = SECRETS.contains(&key.name);
            Row {
                key: key.name.to_owned(),
                value: setting.value.map(|value| if secret { "(not shown)".to_owned() } else { value }),
                source: setting.source,
                environment: Some(key.env),
                about: key.about.to_owned(),
            }
        })
        .collect();
    let plan = context.plan(&crate::args::PlanArgs::default())?;
    if let serde_json::Value::Object(settings) = serde_json::to_value(&plan.settings)? {
        for (name, value) in settings {
            let in_file = context.config.set().iter().any(|set| set.split('=').next() == Some(name.as_str()));
            rows.push(Row {
                key: format!("set.{name}"),
                value: Some(plain_json(&value)),
                source: if in_file { Source::File } else { Source::Default },
                environment: None,
                about: format!("setting of plan {}", plan.name),
            });
        }
    }
    Ok(rows)
}

fn plain_json(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let mut config = Config::default();
        assert_eq!(config.setting("device", None).source, Source::Default);
        config.read("device = \"file\"\nconcurrency = 7\n[set]\ninitial_frames = 8\n").unwrap();
        assert_eq!(config.setting("device", None).value.as_deref(), Some("file"));
        config.environment.insert("device", "environment".to_owned());
        assert_eq!(config.setting("device", None).source, Source::Environment);
        assert_eq!(config.setting("device", Some("flag".to_owned())).source, Source::Flag);
        assert_eq!(config.number("concurrency", None, 1).unwrap(), 7);
        assert_eq!(config.set(), ["initial_frames=8"]);
    }

    #[test]
    fn unknown_keys_and_bad_numbers_are_refused_by_name() {
        let mut config = Config::default();
        assert!(config.read("hoem = \"x\"").unwrap_err().to_string().contains("hoem"));
        config.read("threads = \"many\"").unwrap();
        assert!(config.number("threads", None, 1).unwrap_err().to_string().contains("many"));
        assert!(config.number("concurrency", Some(0), 1).is_err());
    }
}
