//! From the words of a command line, and the configuration file that it names, to what is asked for.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use fcgi_core::Setup;
use fcgi_core::supervisor::Size;

use crate::config::{Config, Effective, Mistake, explain};
use crate::languages::{KNOWN, Known};
use crate::line::Line;
use crate::{Language, LanguageOption, Options, master, options, run};

/// One server: what serves, and how.
pub(crate) struct Asked {
    /// Its pool, when a file has pools.
    pub(crate) pool: Option<String>,
    pub(crate) language: &'static Known,
    pub(crate) options: Options,
    pub(crate) line: Line,
}

impl Asked {
    /// The runner of its language, if that is not `own`.
    pub(crate) fn other_program(&self, own: &Known) -> Option<PathBuf> {
        self.language.find_program().filter(|_| self.language.key != own.key)
    }

    /// Its command line: what was typed, and whose sections without a language are.
    pub(crate) fn words_for_other(&self, own: &Known) -> Vec<OsString> {
        let is_known = self.options.configuration.called_by.is_some();
        let called_by = ["--called-by", own.key].map(OsString::from).into_iter().filter(|_| !is_known);
        called_by.chain(self.line.whole.iter().skip(1).cloned()).collect()
    }
}

/// All that is asked for.
pub(crate) struct Order {
    /// One, unless a file has pools.
    pub(crate) pools: Vec<Asked>,
    /// What has been read from a file, to say where something is wrong.
    pub(crate) config: Option<Config>,
}

/// Why nothing is to be run.
pub(crate) enum Ended {
    /// Help or the version was asked for.
    Told(clap::Error),
    /// The command line is wrong.
    Misused(String),
    /// The file is wrong.
    Mistakes(Vec<Mistake>),
}

/// The table of options of a runner.
pub(crate) fn command(language: &Language) -> Command {
    command_of(&[language.known()])
        .name(language.program)
        .version(format!("{} ({})", env!("CARGO_PKG_VERSION"), (language.version)()))
        .override_usage(format!("{} [OPTION]... [SCRIPT [ARGUMENT]...]", language.program))
        .about(format!("Runs {} scripts: under FastCGI, as CGI, or like the plain interpreter", language.name))
        .after_help(options::examples(language))
}

/// The options that the runners of some languages have.
pub(crate) fn command_of(languages: &[&Known]) -> Command {
    let mut own: Vec<&LanguageOption> = Vec::new();
    for option in languages.iter().flat_map(|language| language.options) {
        if own.iter().all(|known| known.long != option.long) {
            own.push(option);
        }
    }
    Options::command().args(own.into_iter().map(|option| option.to_arg()))
}

impl Order {
    /// Reads a command line, and the file that it names.
    ///
    /// # Errors
    /// [`Ended`].
    pub(crate) fn read(language: &Language, words: Vec<OsString>) -> Result<Self, Ended> {
        let command = command(language);
        let own = language.known();
        let mut line = Line::split(words, &language.own, &command);
        let matches = parse(&command, &line)?;
        let Some(file) = matches.get_one::<PathBuf>("config") else {
            let options = take(own, &matches, &mut line)?;
            return Ok(Self { pools: vec![Asked { pool: None, language: own, options, line }], config: None });
        };
        let called_by = matches.get_one::<String>("called_by");
        let own = KNOWN.iter().find(|known| called_by.is_some_and(|key| *key == known.key)).unwrap_or(own);
        let config = Config::read(file, own).map_err(Ended::Mistakes)?;
        let pool = matches.get_one::<String>("pool");
        let is_typed = |key: &str| is_typed(&command, &matches, key);
        let lines = config.lines(own, pool.map(|name| &**name), &line, is_typed);
        let lines = lines.map_err(|mistake| Ended::Mistakes(vec![mistake]))?;
        let mut pools = Vec::new();
        let mut mistakes = Vec::new();
        for effective in lines {
            let pool = effective.pool.clone();
            match asked(language, &line, effective) {
                Ok(mut asked) => {
                    asked.options.configuration.text = config.passed_on();
                    pools.push(asked);
                }
                Err(text) => {
                    // Of what does not go together, the key whose absence would make it right.
                    let without = |key: &str| {
                        let lines = config.lines(own, pool.as_deref(), &line, |typed| typed == key || is_typed(typed));
                        lines
                            .is_ok_and(|lines| lines.into_iter().all(|line_of| asked(language, &line, line_of).is_ok()))
                    };
                    let culprit = config.keys(pool.as_deref()).find(|key| without(key));
                    let text = culprit.map_or(text.clone(), |key| format!("--{key}: {text}"));
                    mistakes.push(config.mistake(pool.as_deref(), text));
                }
            }
        }
        if mistakes.is_empty() { Ok(Self { pools, config: Some(config) }) } else { Err(Ended::Mistakes(mistakes)) }
    }
}

impl Order {
    /// Whether the pools of a file are to be served, and not the one that `--pool` names.
    pub(crate) fn is_for_master(&self) -> bool {
        self.pools.iter().all(|Asked { pool, options, .. }| {
            let does_more = options.serving.check || options.listening.print_config.is_some();
            pool.is_some() && options.configuration.pool.is_none() && !does_more
        })
    }

    /// What can be found wrong without beginning to serve.
    pub(crate) fn wrong(&self, language: &Language) -> Vec<String> {
        let checks = self.pools.iter().any(|asked| asked.options.configuration.check_config);
        let mut wrong = Vec::new();
        for asked in &self.pools {
            if let (Some(config), true) = (&self.config, asked.language.key != language.known().key)
                && asked.language.find_program().is_none()
            {
                let program = asked.language.program;
                let text = format!("{program} is neither beside this program nor in the path: install it");
                wrong.push(config.wrong_language(asked.pool.as_deref(), &text).to_string());
            }
        }
        for asked in &self.pools {
            if checks || self.config.is_some() || asked.options.system.daemonize {
                wrong.extend(run::check(asked).into_iter().map(|e| self.located(asked, &format!("{e:#}"))));
            }
        }
        for (at, asked) in self.pools.iter().enumerate() {
            for (option, address) in asked.options.addresses() {
                let has = |other: &&Asked| other.options.addresses().iter().any(|(_, known)| *known == address);
                if let Some(first) = self.pools[..at].iter().find(has) {
                    let first = first.pool.as_deref().unwrap_or_default();
                    let text = format!("--{option}: the pool \"{first}\" listens on {address} already");
                    wrong.push(self.located(asked, &text));
                }
            }
        }
        wrong
    }

    /// Does what is asked for; gives the exit status.
    pub(crate) fn run(self, language: &Language) -> u8 {
        let wrong = self.wrong(language);
        if !wrong.is_empty() {
            for text in wrong {
                eprintln!("{text}");
            }
            return crate::USAGE;
        }
        if self.pools.iter().any(|asked| asked.options.configuration.check_config) {
            println!("{}: the configuration is right", language.program);
            return 0;
        }
        if self.is_for_master() {
            return master::run(language, &self).unwrap_or_else(|e| {
                eprintln!("{e:#}");
                crate::USAGE
            });
        }
        if self.pools.len() > 1 {
            let names: Vec<_> = self.pools.iter().filter_map(|asked| asked.pool.as_deref()).collect();
            eprintln!(
                "{}: the file has several pools: name one (--pool {})",
                language.program,
                names.join(", --pool ")
            );
            return crate::USAGE;
        }
        let Self { pools, config } = self;
        let mut pools = pools.into_iter();
        let Some(asked) = pools.next() else { return 0 };
        if let Some(program) = asked.other_program(language.known()) {
            // It reads the same file, and finds its own language there.
            let why = std::process::Command::new(&program).args(asked.words_for_other(language.known())).exec();
            eprintln!("{}: cannot start {}: {why}", language.program, program.display());
            return crate::USAGE;
        }
        run::run(language, &asked.options, asked.line).unwrap_or_else(|e| {
            let text = format!("{e:#}");
            match config {
                Some(config) => eprintln!("{}", config.mistake(asked.pool.as_deref(), text)),
                None => eprintln!("{}: {text}", language.program),
            }
            crate::USAGE
        })
    }

    /// An error with its place in the file, or behind the program's name.
    pub(crate) fn located(&self, asked: &Asked, text: &str) -> String {
        match &self.config {
            Some(config) => config.mistake(asked.pool.as_deref(), text.to_owned()).to_string(),
            None => format!("{}: {text}", asked.language.program),
        }
    }
}

/// What a section of a file and the command line together ask for.
fn asked(language: &Language, typed: &Line, effective: Effective) -> Result<Asked, String> {
    let Effective { pool, language: known, words } = effective;
    let command = command_of(&[known]);
    let mut line = Line::split(words, &language.own, &command);
    let complain = |e: &clap::Error| explain(e);
    let matches = command.try_get_matches_from(line.runner.clone()).map_err(|e| complain(&e))?;
    line.language = language_values(known, &matches);
    // What interpreters show of it is what was typed.
    line.whole.clone_from(&typed.whole);
    let mut options = Options::from_arg_matches(&matches).map_err(|e| complain(&e))?.settled();
    if pool.is_some() {
        // A pool has a parent, which can be reloaded.
        options.processes.workers.get_or_insert(Size::fixed(1));
    }
    Ok(Asked { pool, language: known, options, line })
}

fn parse(command: &Command, line: &Line) -> Result<ArgMatches, Ended> {
    command.clone().try_get_matches_from(line.runner.clone()).map_err(ended)
}

fn take(known: &Known, matches: &ArgMatches, line: &mut Line) -> Result<Options, Ended> {
    line.language = language_values(known, matches);
    Options::from_arg_matches(matches).map(Options::settled).map_err(ended)
}

fn language_values(known: &Known, matches: &ArgMatches) -> Vec<(&'static str, OsString)> {
    known.options.iter().filter_map(|option| option.value(matches)).collect()
}

fn ended(e: clap::Error) -> Ended {
    if !e.use_stderr() {
        return Ended::Told(e);
    }
    let text = e.render().to_string();
    // What is wrong stands before an empty line, in one line or in several.
    let wrong: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    Ended::Misused(format!("{} (--help tells more)", wrong.join(" ").trim_start_matches("error: ")))
}

fn is_typed(command: &Command, matches: &ArgMatches, key: &str) -> bool {
    let option = command.get_arguments().find(|option| option.get_long() == Some(key));
    option.is_some_and(|option| matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine))
}

impl Ended {
    /// What is wrong, line by line.
    pub(crate) fn mistakes(self) -> Vec<String> {
        match self {
            Self::Misused(text) => vec![text],
            Self::Mistakes(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
            Self::Told(_) => Vec::new(),
        }
    }

    /// Says it; gives the exit status.
    pub(crate) fn tell(self, language: &Language) -> u8 {
        match self {
            Self::Misused(text) => {
                eprintln!("{}: {text}", language.program);
                crate::USAGE
            }
            Self::Mistakes(mistakes) => {
                for mistake in mistakes {
                    eprintln!("{mistake}");
                }
                crate::USAGE
            }
            Self::Told(e) => {
                // A pipe that closes early is not ours to complain about.
                let _ = e.print();
                if let (ErrorKind::DisplayHelp, Some(option)) = (e.kind(), language.own.help) {
                    println!("\nBefore the script, also {}'s own options:\n", language.name);
                    let setup =
                        Setup { program: language.program.into(), own: vec![option.into()], ..Setup::default() };
                    return crate::status(language, (language.plain)(&setup));
                }
                0
            }
        }
    }
}
