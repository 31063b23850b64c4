//! Day 14: `rename`: a container is called otherwise from now on, whether it runs or not.

use anyhow::bail;

use crate::error::{Result, failed};
use crate::metadata::record::Record;
use crate::metadata::state::State;
use crate::metadata::{check_name, flush};
use crate::networks;

/// Give a container another name
#[derive(Debug, clap::Args)]
pub struct Rename {
    #[command(flatten)]
    state: State,

    /// Its id or name
    container: String,

    /// What it is called from now on
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

impl Rename {
    /// Prints nothing, as Docker's. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        check_name("the new name", &self.name).map_err(failed)?;
        let record = self.state.find(&self.container).map_err(failed)?;
        self.rename(&record).map_err(failed)?;
        flush::soon(&self.state.dir(&record.id));
        Ok(0)
    }

    // ANCHOR: rename
    /// Gives it the name, in its record and on the networks that it is on.
    ///
    /// Between the look whether the name is free and the moment it is taken nobody else may take
    /// one. On the networks it is changed twice: before, so that whoever repeats a `rename` that
    /// was killed puts all right; and after, for it may have joined them meanwhile, by the old one.
    fn rename(&self, record: &Record) -> Result<()> {
        // ANCHOR: day14_task4_rename_solution
        if record.name.as_ref() == Some(&self.name) {
            bail!("container {} is called {:?} already", record.id, self.name);
        }
        let _nobody_else = self.state.reserve(&self.name)?;
        networks::renamed(&record.id, &self.name)?;
        let written = self.state.change(&record.id, |record| {
            record.name = Some(self.name.clone());
            Ok(())
        });
        match written {
            Ok(_) => networks::renamed(&record.id, &self.name),
            Err(error) => {
                let _ = networks::renamed(&record.id, record.title());
                Err(error)
            }
        }
        // ANCHOR_END: day14_task4_rename_solution
    }
    // ANCHOR_END: rename
}
