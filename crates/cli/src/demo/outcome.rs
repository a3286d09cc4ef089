//! What a demonstration came to, told three times: a table on stdout, a report with trace pages, figures as JSON.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bytes::Bytes;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::json;
use spectemp_demo::{DemoQuestion, DemoVideo};
use spectemp_pages::{DemoAnswer, DemoCell, DemoReport, Thumbnail, demo_report_html, trace_html};
use spectemp_store::{Home, ObjectKey};
use spectemp_types::Trace;

use super::{
    DemoArgs,
    archive::OnDisk,
    asking::{Asked, CONTENDERS},
    clock,
    score::{self, Scored},
};
use crate::{bench::origin::Origin, context::Context, output};

/// Archives of at most so many questions get a page for every trace; larger ones for the wrong answers of `spectemp`.
const ALL_TRACES: usize = 60;

/// All answers and their figures.
pub(super) struct Outcome<'a> {
    name: &'a str,
    files: &'a OnDisk,
    asked: Vec<(&'static str, Asked)>,
    cells: Vec<DemoCell>,
}

impl<'a> Outcome<'a> {
    pub(super) fn new(name: &'a str, files: &'a OnDisk, asked: Vec<(&'static str, Vec<Asked>)>) -> Self {
        let asked: Vec<(&'static str, Asked)> = asked
            .into_iter()
            .flat_map(|(strategy, answers)| answers.into_iter().map(move |one| (strategy, one)))
            .collect();
        let mut outcome = Self { name, files, asked, cells: Vec::new() };
        let scored: Vec<Scored> =
            outcome.asked.iter().map(|(strategy, one)| outcome.score(strategy, one)).collect();
        let groups = score::groups(scored.iter().map(|one| one.seconds).collect());
        outcome.cells = score::cells(&scored, &groups, &CONTENDERS.map(|contender| contender.name));
        outcome
    }

    fn source(&self, asked: &Asked) -> (&DemoVideo, &DemoQuestion) {
        let video = &self.files.videos[asked.video].0;
        (video, &video.questions[asked.question])
    }

    fn is_right(&self, asked: &Asked) -> bool {
        let (_, question) = self.source(asked);
        asked.answer.as_ref().is_ok_and(|row| row.answer.text.trim() == question.answer)
    }

    fn score(&self, strategy: &'static str, asked: &Asked) -> Scored {
        Scored {
            strategy,
            seconds: self.source(asked).0.seconds,
            right: self.is_right(asked),
            totals: asked.answer.as_ref().ok().map(|row| row.totals),
        }
    }

    /// Prints and writes everything. Exit status 1 where a job failed.
    pub(super) async fn tell(
        &self,
        home: &Home,
        args: &DemoArgs,
        context: &Context,
    ) -> anyhow::Result<ExitCode> {
        let dir = args.report.clone().unwrap_or_else(|| home.dir().join("demo").join(self.name));
        let commands = self.commands(home, context);
        let report = self.write_report(home, &dir, &commands).await?;
        if let Some(path) = &args.json {
            write(path, (serde_json::to_string_pretty(&self.figures(args))? + "\n").as_bytes())?;
        }
        let mut lines = vec![self.table(), self.comparison()];
        lines.push(format!("videos   {}", self.files.dir.display()));
        lines.push(format!("report   {}", report.display()));
        lines.push(format!("ledger   {}", home.dir().join("ledger.sqlite").display()));
        lines.extend(commands.iter().map(|command| format!("try      {command}")));
        output::print(&lines.join("\n"))?;
        let failed: Vec<String> = self.asked.iter().filter_map(|(_, one)| failure(one)).collect();
        failed.iter().for_each(|line| eprintln!("{line}"));
        Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let heads = [
            "length",
            "strategy",
            "right",
            "accuracy",
            "95 % interval",
            "frames seen",
            "bytes read",
            "seconds",
        ];
        table.set_header(heads);
        let mut last = "";
        for cell in &self.cells {
            let length = if cell.length == last { "" } else { &cell.length };
            last = &cell.length;
            let numbers = [
                format!("{}/{}", cell.right, cell.questions),
                format!("{:.2}", f64::from(cell.right) / f64::from(cell.questions.max(1))),
                format!("{:.2}–{:.2}", cell.low, cell.high),
                format!("{:.1}", cell.frames),
                format!("{:.0}", cell.bytes),
                format!("{:.2}", cell.seconds),
            ];
            let numbers = numbers.map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
            table.add_row([Cell::new(length), Cell::new(&cell.strategy)].into_iter().chain(numbers));
        }
        let note = "frames seen by the target, bytes read and seconds of work: means per question";
        format!("{}\n{note}\n", table.trim_fmt())
    }

    fn comparison(&self) -> String {
        let apart = score::apart(&self.cells, "spectemp");
        match apart.len() {
            0 => "at no length does the interval of spectemp lie above those of both baselines\n".to_owned(),
            _ => format!(
                "the interval of spectemp lies above those of both baselines at: {}\n",
                apart.join(", ")
            ),
        }
    }

    fn commands(&self, home: &Home, context: &Context) -> Vec<String> {
        let spectemp = match context.global.home {
            Some(_) => format!("spectemp --home {}", home.dir().display()),
            None => "spectemp".to_owned(),
        };
        let query = format!(
            "select strategy, count(*) as questions, avg(rounds) as rounds, avg(target_frames) as frames from answers \
             where batch like '{}/%' group by strategy",
            self.name
        );
        let mut commands = vec![format!("{spectemp} sql \"{query}\"")];
        let shown = self.asked.iter().find(|(_, one)| one.answer.is_ok());
        commands.extend(shown.map(|(strategy, one)| {
            format!("{spectemp} show {} --batch {}/{strategy} --html trace.html", one.id, self.name)
        }));
        commands
    }

    fn figures(&self, args: &DemoArgs) -> serde_json::Value {
        let wrong =
            self.asked.iter().filter(|(strategy, one)| *strategy == "spectemp" && !self.is_right(one));
        let wrong = wrong.map(|(_, one)| {
            let (video, question) = self.source(one);
            json!({"id": one.id, "seconds": video.seconds, "question": question.text, "expected": question.answer, "got": got(one)})
        });
        json!({
            "origin": Origin::here(),
            "version": env!("CARGO_PKG_VERSION"),
            "archive": {
                "seed": args.seed,
                "videos": self.files.videos.len(),
                "seconds": self.files.videos.iter().map(|(video, _)| u64::from(video.seconds)).sum::<u64>(),
                "fps": args.fps,
                "bytes": self.files.bytes,
            },
            "interval": "Wilson, 95 %",
            "cells": self.cells,
            "spectemp_above_both_at": score::apart(&self.cells, "spectemp"),
            "spectemp_wrong": wrong.collect::<Vec<_>>(),
        })
    }

    /// Writes the report and the traces' pages; where the report is.
    async fn write_report(&self, home: &Home, dir: &Path, commands: &[String]) -> anyhow::Result<PathBuf> {
        let traces = dir.join("traces");
        std::fs::create_dir_all(&traces)
            .with_context(|| format!("folder {} cannot be made", traces.display()))?;
        let mut links = HashMap::new();
        for (strategy, one) in self.asked.iter().filter(|(strategy, one)| self.wants_page(strategy, one)) {
            if let Some(page) = trace_page(home, one).await? {
                let link = format!("traces/{}.html", one.id);
                write(&dir.join(&link), page.as_bytes())?;
                links.insert((*strategy, one.id.as_str()), link);
            }
        }
        let answers = self.asked.iter().map(|(strategy, one)| {
            self.answer(strategy, one, links.get(&(*strategy, one.id.as_str())).cloned())
        });
        let report = DemoReport {
            made: clock::readable(clock::now()),
            summary: self.summary(),
            interval_percent: 95,
            cells: self.cells.clone(),
            answers: answers.collect(),
            commands: commands.to_vec(),
        };
        let path = dir.join("report.html");
        write(&path, demo_report_html(&report)?.as_bytes())?;
        Ok(path)
    }

    fn wants_page(&self, strategy: &str, asked: &Asked) -> bool {
        self.files.questions() <= ALL_TRACES || (strategy == "spectemp" && !self.is_right(asked))
    }

    fn answer(&self, strategy: &str, asked: &Asked, trace: Option<String>) -> DemoAnswer {
        let (video, question) = self.source(asked);
        DemoAnswer {
            video: video.name.clone(),
            seconds: video.seconds,
            question: question.text.clone(),
            expected: question.answer.clone(),
            strategy: strategy.to_owned(),
            got: got(asked),
            right: self.is_right(asked),
            trace,
        }
    }

    fn summary(&self) -> String {
        format!(
            "In each scene of a synthetic video one digit flashes for one to two seconds; each question names a scene \
             and asks for its digit. Run {}: {}. Every answer went the way of spectemp run: byte ranges of the files, \
             rounds in the ledger, traces as objects.",
            self.name,
            self.files.in_words()
        )
    }
}

fn got(asked: &Asked) -> String {
    match &asked.answer {
        Ok(row) => row.answer.text.clone(),
        Err(error) => format!("no answer: {error}"),
    }
}

fn failure(asked: &Asked) -> Option<String> {
    asked.answer.as_ref().err().map(|error| format!("{}: {error}", asked.id))
}

async fn trace_page(home: &Home, asked: &Asked) -> anyhow::Result<Option<String>> {
    let Ok(row) = &asked.answer else { return Ok(None) };
    let Some(trace) = home.objects().trace(asked.job, row.epoch).await? else { return Ok(None) };
    let images = thumbnails(home, &trace).await?;
    let thumbnails: Vec<Thumbnail<'_>> =
        images.iter().map(|(pts_s, png)| Thumbnail { pts_s: *pts_s, png }).collect();
    Ok(Some(trace_html(&trace, &thumbnails)?))
}

async fn thumbnails(home: &Home, trace: &Trace) -> anyhow::Result<Vec<(f64, Bytes)>> {
    let mut images = Vec::new();
    for round in &trace.rounds {
        for (place, frame) in round.frames.iter().enumerate() {
            let key = ObjectKey::Thumbnail { job: trace.job_id, round: round.no, frame: place as u32 };
            images.extend(home.objects().get(&key).await?.map(|png| (frame.pts_s, png)));
        }
    }
    Ok(images)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}
