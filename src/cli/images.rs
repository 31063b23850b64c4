//! Day 12: the commands that are about images.

use clap::Subcommand;

use crate::error::Result;
use crate::images::archive::Save;
use crate::images::list::{History, Images, Tag};
use crate::images::load::Load;
use crate::images::login::{Login, Logout};
use crate::images::pull::Pull;
use crate::images::push::Push;
use crate::images::rmi::{ImageCommand, Rmi};
use crate::images::unflushed::FlushImages;
use crate::images::unpack::UnpackLayer;

// Deferred as all others are: see `Command`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum ImagesCommand {
    Pull(Pull),
    Push(Push),
    Login(Login),
    Logout(Logout),
    Images(Images),
    Rmi(Rmi),
    Tag(Tag),
    History(History),
    Image(ImageCommand),
    Save(Save),
    Load(Load),
    #[command(hide = true)]
    UnpackLayer(UnpackLayer),
    #[command(hide = true)]
    FlushImages(FlushImages),
}

impl ImagesCommand {
    /// Does what was typed. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        match self {
            ImagesCommand::Pull(pull) => pull.execute(),
            ImagesCommand::Push(push) => push.execute(),
            ImagesCommand::Login(login) => login.execute(),
            ImagesCommand::Logout(logout) => logout.execute(),
            ImagesCommand::Images(images) => images.execute(),
            ImagesCommand::Rmi(rmi) => rmi.execute(),
            ImagesCommand::Tag(tag) => tag.execute(),
            ImagesCommand::History(history) => history.execute(),
            ImagesCommand::Image(image) => image.execute(),
            ImagesCommand::Save(save) => save.execute(),
            ImagesCommand::Load(load) => load.execute(),
            ImagesCommand::UnpackLayer(unpack) => unpack.execute(),
            ImagesCommand::FlushImages(flush) => flush.execute(),
        }
    }
}
