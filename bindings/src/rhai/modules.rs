//! What `import` finds: files in the directory of the script, and below it. They are compiled once, until they change; each
//! request runs them anew, as it does the script.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fcgi_core::script::Watch;
use rhai::{AST, Engine, EvalAltResult, Module, ModuleResolver, ParseErrorType, Position, Scope};

/// Finds modules for one engine.
#[derive(Clone, Default)]
pub(super) struct Modules(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// Where the script that runs lies.
    directory: PathBuf,
    compiled: HashMap<PathBuf, (Watch, AST)>,
    /// Modules of the request that runs.
    loaded: HashMap<PathBuf, Rc<Module>>,
    /// Modules that are being loaded.
    loading: Vec<PathBuf>,
}

impl Modules {
    /// A request begins whose script lies in this directory.
    pub(super) fn enter(&self, directory: &Path) {
        let state = &mut *self.0.borrow_mut();
        state.loaded.clear();
        state.loading.clear();
        if state.directory != directory {
            directory.clone_into(&mut state.directory);
        }
    }

    /// The file that a module's path means; `None` when there is none, or it is out of reach.
    fn find(&self, source: Option<&str>, path: &str) -> Option<PathBuf> {
        let state = self.0.borrow();
        let from = source.and_then(|source| Path::new(source).parent()).filter(|parent| parent.is_absolute());
        let file = from.unwrap_or(&state.directory).join(path).with_extension("rhai").canonicalize().ok()?;
        let directory = state.directory.canonicalize().ok()?;
        file.starts_with(directory).then_some(file)
    }

    fn compiled(&self, engine: &Engine, file: &Path) -> Result<AST, Box<EvalAltResult>> {
        if let Some((watch, ast)) = self.0.borrow_mut().compiled.get_mut(file)
            && !watch.has_changed()
        {
            return Ok(ast.clone());
        }
        let watch = Watch::new(file);
        let mut ast = engine.compile_file(file.to_owned())?;
        ast.set_source(file.to_string_lossy().as_ref());
        self.0.borrow_mut().compiled.insert(file.to_owned(), (watch, ast.clone()));
        Ok(ast)
    }
}

impl ModuleResolver for Modules {
    fn resolve(
        &self,
        engine: &Engine,
        source: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Rc<Module>, Box<EvalAltResult>> {
        let Some(file) = self.find(source, path) else {
            return Err(EvalAltResult::ErrorModuleNotFound(path.to_owned(), position).into());
        };
        if let Some(module) = self.0.borrow().loaded.get(&file) {
            return Ok(module.clone());
        }
        let name = file.to_string_lossy().into_owned();
        let in_module = |e| Box::new(EvalAltResult::ErrorInModule(name.clone(), e, position));
        if self.0.borrow().loading.contains(&file) {
            let circle = ParseErrorType::ModuleUndefined(format!("{path} (it is being imported already)"));
            return Err(in_module(EvalAltResult::ErrorParsing(circle, Position::NONE).into()));
        }
        let ast = self.compiled(engine, &file).map_err(in_module)?;
        self.0.borrow_mut().loading.push(file.clone());
        let module = Module::eval_ast_as_new(Scope::new(), &ast, engine);
        self.0.borrow_mut().loading.pop();
        let module = Rc::new(module.map_err(in_module)?);
        self.0.borrow_mut().loaded.insert(file, module.clone());
        Ok(module)
    }
}
