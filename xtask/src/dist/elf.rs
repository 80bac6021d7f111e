//! What a program needs of the machine it is brought to, read from the program itself.

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader};

use super::Arch;

/// Whether it is a program of this architecture that needs no interpreter and no library, and carries no
/// symbols; otherwise why not.
pub fn check(bytes: &[u8], arch: Arch) -> Result<(), String> {
    inspect(bytes, arch).unwrap_or_else(|error| Err(format!("it cannot be read: {error}")))
}

fn inspect(bytes: &[u8], arch: Arch) -> object::Result<Result<(), String>> {
    let file = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = file.endian()?;
    let machine = match arch {
        Arch::X8664 => elf::EM_X86_64,
        Arch::Aarch64 => elf::EM_AARCH64,
    };
    if file.e_machine(endian) != machine {
        return Ok(Err(format!("it is for machine {}", file.e_machine(endian))));
    }
    for segment in file.program_headers(endian, bytes)? {
        if segment.interpreter(endian, bytes)?.is_some() {
            return Ok(Err("it needs a dynamic linker".to_owned()));
        }
        let dynamic = segment.dynamic(endian, bytes)?.unwrap_or_default();
        if dynamic.iter().any(|entry| entry.tag32(endian) == Some(elf::DT_NEEDED)) {
            return Ok(Err("it needs a shared library".to_owned()));
        }
    }
    let sections = file.section_headers(endian, bytes)?;
    if sections.iter().any(|section| section.sh_type(endian) == elf::SHT_SYMTAB) {
        return Ok(Err("it is not stripped".to_owned()));
    }
    Ok(Ok(()))
}
