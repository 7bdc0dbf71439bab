//! `ocelli caption`: describes pictures, one after the other.

use crate::answer::{self, Asker, print_json};
use crate::cli::{CaptionArgs, Global};
use crate::fault::Fault;
use crate::model;
use crate::progress::Progress;
use std::io::{self, Write};
use std::path::Path;

/// Runs the verb. A picture that cannot be used is reported and the others go on.
///
/// # Errors
///
/// See [`Fault`].
pub fn run(global: &Global, args: &CaptionArgs) -> Result<(), Fault> {
    if args.answer.dump_stages.is_some() && args.images.len() > 1 {
        return Err(Fault::Argument(format!(
            "--dump-stages takes one picture, {} were given",
            args.images.len()
        )));
    }
    args.answer.generate_options().sampling.validate()?;
    let mut progress = Progress::new(global);
    let (vlm, load) = model::load(global, &mut progress)?;
    let mut asker = Asker::new(global, &args.answer, &vlm, load)?;
    let mut failed = 0;
    for path in &args.images {
        match caption(&mut asker, path, args, &mut progress) {
            Err(fault @ (Fault::Image { .. } | Fault::Run(_)))
                if args.images.len() > 1 && fault.exit_code() == 2 =>
            {
                progress.clear();
                fault.report();
                failed += 1;
            }
            outcome => outcome?,
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(Fault::SomeImages {
            failed,
            total: args.images.len(),
        }),
    }
}

fn caption(
    asker: &mut Asker<'_>,
    path: &Path,
    args: &CaptionArgs,
    progress: &mut Progress,
) -> Result<(), Fault> {
    let name = path.display().to_string();
    let image = answer::open(path)?;
    let stats = asker.prompt(&image, &name, &args.prompt, progress)?;
    let mut out = io::stdout();
    if args.images.len() > 1 && !asker.global.json {
        write!(out, "{name}: ")?;
    }
    let answer = asker.say()?;
    if asker.global.json {
        print_json(asker.answer_report(&name, &stats, &answer))?;
    } else {
        writeln!(out)?;
    }
    asker.remark(&stats, &answer);
    Ok(())
}
