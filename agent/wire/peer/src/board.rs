//! [`Board`]: the LM3S6965 evaluation board as far as the example needs it.
//!
//! Addresses and bits are those of the datasheet DS-LM3S6965: system control (chapter 5), GPIO (8),
//! UART (12). Clock: 12.5 MHz from the PLL.

use core::cell::RefCell;
use cortex_m::Peripherals;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use ocelli_wire::Millis;

const CLOCK_HZ: u32 = 12_500_000;
/// The timer counts 24 bits, downwards.
const TIMER_MASK: u32 = 0x00ff_ffff;

const SYSCTL_RIS: usize = 0x400f_e050;
const SYSCTL_RCC: usize = 0x400f_e060;
const SYSCTL_RCGC1: usize = 0x400f_e104;
const SYSCTL_RCGC2: usize = 0x400f_e108;
const GPIO_A: usize = 0x4000_4000;
const GPIO_E: usize = 0x4002_4000;
const GPIO_F: usize = 0x4002_5000;
const GPIO_DIR: usize = 0x400;
const GPIO_AFSEL: usize = 0x420;
const GPIO_PUR: usize = 0x510;
const GPIO_DEN: usize = 0x51c;
const UART0: usize = 0x4000_c000;
const UART_FR: usize = UART0 + 0x18;
const UART_IBRD: usize = UART0 + 0x24;
const UART_FBRD: usize = UART0 + 0x28;
const UART_LCRH: usize = UART0 + 0x2c;
const UART_CTL: usize = UART0 + 0x30;

const UART_RX_EMPTY: u32 = 1 << 4;
const UART_TX_FULL: u32 = 1 << 5;
const PLL_LOCKED: u32 = 1 << 6;
/// System divider 16 of 200 MHz, crystal 8 MHz, PLL on.
const RCC_PLL: u32 = (15 << 23) | (1 << 22) | (0xe << 6);
const RCC_BYPASS: u32 = 1 << 11;
const PIN_0: u32 = 1 << 0;
const PINS_0_1: u32 = 3;

/// The board; there is one.
pub struct Board {
    clock: RefCell<Clock>,
}

struct Clock {
    /// Keeps the timer ours.
    _timer: SYST,
    last: u32,
    /// Clocks since the start, up to `last`.
    clocks: u64,
}

impl Board {
    /// Sets up clock, UART0 at 115200 baud, the status lamp and the up button.
    pub fn new() -> Board {
        write(SYSCTL_RCC, RCC_PLL | RCC_BYPASS);
        while read(SYSCTL_RIS) & PLL_LOCKED == 0 {}
        write(SYSCTL_RCC, RCC_PLL);
        write(SYSCTL_RCGC1, 1);
        write(SYSCTL_RCGC2, (1 << 0) | (1 << 4) | (1 << 5));
        // The first access to a unit must come some clocks after its clock.
        cortex_m::asm::delay(8);

        write(GPIO_A + GPIO_AFSEL, PINS_0_1);
        write(GPIO_A + GPIO_DEN, PINS_0_1);
        write(GPIO_E + GPIO_PUR, PIN_0);
        write(GPIO_E + GPIO_DEN, PIN_0);
        write(GPIO_F + GPIO_DIR, PIN_0);
        write(GPIO_F + GPIO_DEN, PIN_0);

        // 12.5 MHz / (16 * 115200) = 6 + 50/64.
        write(UART_CTL, 0);
        write(UART_IBRD, 6);
        write(UART_FBRD, 50);
        write(UART_LCRH, (3 << 5) | (1 << 4));
        write(UART_CTL, (1 << 9) | (1 << 8) | 1);

        let mut timer = Peripherals::take().expect("main runs once").SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(TIMER_MASK);
        timer.clear_current();
        timer.enable_counter();
        Board {
            clock: RefCell::new(Clock {
                _timer: timer,
                last: TIMER_MASK,
                clocks: 0,
            }),
        }
    }

    /// Milliseconds since the start; to be called at least once a second, before the timer has gone
    /// round.
    pub fn now(&self) -> Millis {
        let mut clock = self.clock.borrow_mut();
        let (last, current) = (clock.last, SYST::get_current());
        clock.clocks += u64::from(last.wrapping_sub(current) & TIMER_MASK);
        clock.last = current;
        clock.clocks / u64::from(CLOCK_HZ / 1000)
    }

    /// The next byte received, if there is one.
    pub fn receive(&self) -> Option<u8> {
        // The data are the low eight bits; the others are error flags.
        (read(UART_FR) & UART_RX_EMPTY == 0).then(|| read(UART0) as u8)
    }

    /// Sends a byte as soon as the FIFO has room, at most 87 µs later.
    pub fn send(&self, byte: u8) {
        while read(UART_FR) & UART_TX_FULL != 0 {}
        write(UART0, u32::from(byte));
    }

    /// Whether the up button is pressed; it is active low.
    pub fn button(&self) -> bool {
        read(GPIO_E + ((PIN_0 as usize) << 2)) & PIN_0 == 0
    }

    /// Switches the status lamp.
    pub fn set_lamp(&self, on: bool) {
        write(GPIO_F + ((PIN_0 as usize) << 2), if on { PIN_0 } else { 0 });
    }
}

#[expect(unsafe_code, reason = "hardware registers")]
fn read(address: usize) -> u32 {
    // SAFETY: the constants of this file are addresses of aligned 32-bit registers, which exist for
    // as long as the program runs; nothing else of the program touches them.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_volatile() }
}

#[expect(unsafe_code, reason = "hardware registers")]
fn write(address: usize, value: u32) {
    // SAFETY: as for `read`; none of the registers written starts a transfer to or from memory.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(value) }
}
