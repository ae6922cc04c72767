// The legacy controller's arithmetic of one frame in C++ with Eigen, dense matrices in double precision.
//
// Not the legacy program: an equivalent written for the comparison, without its locks, streams and
// allocations. Order of steps: dark, bad pixels by the frame's median, flux, pixels to actuators, signal,
// errors, controllers, modes to the mirror's grid, sum, limit, and the vectors of the telemetry record.

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <vector>

namespace {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;
using MapMatrix = Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using MapVector = Eigen::Map<const Vector>;

enum Kind { PID = 0, LEAKY = 1 };

struct Controller {
    int64_t kind = PID;
    Vector set_point, kp, ki, kd, leak, lower, upper;
    Vector integral, previous, error;

    // gains: kp, ki, kd, leak, lower, upper, one after the other
    void load(int64_t kind_, int64_t modes, const double* gains) {
        kind = kind_;
        Vector* const all[] = {&kp, &ki, &kd, &leak, &lower, &upper};
        for (int k = 0; k < 6; ++k) *all[k] = MapVector(gains + k * modes, modes);
        set_point = integral = previous = error = Vector::Zero(modes);
    }

    template <class Measured, class Output>
    void step(const Measured& measured, Output&& output) {
        error = measured - set_point;
        if (kind == LEAKY) {
            integral = (leak.array() * (integral.array() + ki.array() * error.array()))
                           .max(lower.array()).min(upper.array());
            output = integral;
        } else {
            integral = (integral.array() + ki.array() * error.array()).max(lower.array()).min(upper.array());
            output = (kp.array() * error.array() + integral.array()
                      + kd.array() * (error.array() - previous.array()))
                         .max(lower.array()).min(upper.array());
            previous = error;
        }
    }
};

// One column per record, as a ring.
struct Telemetry {
    Matrix img_dm, signal, e_lo, u_lo, e_ho, u_ho, c_lo, c_ho, c_inj, command;
    Vector flux;
};

struct Reference {
    Vector dark, reference, clear_pupil, image, command, injected;
    Matrix to_actuators, reconstructor_lo, reconstructor_ho, shapes_lo, shapes_ho;
    Controller lo, ho;
    std::vector<int64_t> bad_pixels;
    std::vector<double> scratch;
    double limit = 0.0, ho_limit = 0.0, lo_limit = 0.0, min_flux = 0.0;
    Telemetry ring;
    int64_t written = 0;

    double median() {
        std::copy(image.data(), image.data() + image.size(), scratch.begin());
        const auto middle = scratch.begin() + scratch.size() / 2;
        std::nth_element(scratch.begin(), middle, scratch.end());
        if (scratch.size() % 2 == 1) return *middle;
        return 0.5 * (*middle + *std::max_element(scratch.begin(), middle));
    }

    bool step(const int32_t* raw) {
        image = Eigen::Map<const Eigen::Matrix<int32_t, Eigen::Dynamic, 1>>(raw, image.size()).cast<double>()
                - dark;
        if (!bad_pixels.empty()) {
            const double value = median();
            for (const int64_t pixel : bad_pixels) image[pixel] = value;
        }
        const double flux = image.sum();
        if (!(std::isfinite(flux) && flux > min_flux)) return false;
        const int64_t row = written++ % ring.flux.size();
        ring.flux[row] = flux;
        auto img_dm = ring.img_dm.col(row);
        auto signal = ring.signal.col(row);
        auto e_lo = ring.e_lo.col(row);
        auto e_ho = ring.e_ho.col(row);
        auto u_lo = ring.u_lo.col(row);
        auto u_ho = ring.u_ho.col(row);
        auto c_lo = ring.c_lo.col(row);
        auto c_ho = ring.c_ho.col(row);
        img_dm.noalias() = to_actuators * image;
        img_dm /= flux;
        signal = (img_dm - reference).cwiseQuotient(clear_pupil);
        e_lo.noalias() = reconstructor_lo * signal;
        e_ho.noalias() = reconstructor_ho * signal;
        lo.step(e_lo, u_lo);
        ho.step(e_ho, u_ho);
        for (Eigen::Index mode = 0; mode < u_ho.size(); ++mode) {
            if (!(std::abs(u_ho[mode]) <= ho_limit)) {
                u_ho[mode] = 0.0;
                ho.integral[mode] = 0.0;
                ho.previous[mode] = 0.0;
            }
        }
        c_lo.noalias() = shapes_lo * u_lo;
        c_ho.noalias() = shapes_ho * u_ho;
        if (!(c_lo.cwiseAbs().maxCoeff() <= lo_limit)) {
            lo.integral.setZero();
            lo.previous.setZero();
            u_lo.setZero();
            c_lo.setZero();
        }
        command = injected - (c_lo + c_ho);
        command = command.cwiseMax(-limit).cwiseMin(limit);
        ring.c_inj.col(row) = injected;
        ring.command.col(row) = command;
        return true;
    }
};

int64_t now_ns() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return int64_t(time.tv_sec) * 1000000000 + time.tv_nsec;
}

}  // namespace

extern "C" {

// sizes: pixels, actuators, low-order modes, high-order modes, grid points, records of the ring, bad pixels,
// kind of the low-order and of the high-order controller. Matrices: row by row.
// limits: of the command, of the low-order map, of a high-order mode, least flux.
void* reference_create(const int64_t* sizes, const double* dark, const int64_t* bad_pixels,
                       const double* to_actuators, const double* reference, const double* clear_pupil,
                       const double* reconstructor_lo, const double* reconstructor_ho,
                       const double* shapes_lo, const double* shapes_ho, const double* gains_lo,
                       const double* gains_ho, const double* limits) {
    const int64_t P = sizes[0], A = sizes[1], L = sizes[2], H = sizes[3], G = sizes[4], N = sizes[5];
    auto* made = new Reference;
    made->dark = MapVector(dark, P);
    made->bad_pixels.assign(bad_pixels, bad_pixels + sizes[6]);
    made->to_actuators = MapMatrix(to_actuators, A, P);
    made->reference = MapVector(reference, A);
    made->clear_pupil = MapVector(clear_pupil, A);
    made->reconstructor_lo = MapMatrix(reconstructor_lo, L, A);
    made->reconstructor_ho = MapMatrix(reconstructor_ho, H, A);
    made->shapes_lo = MapMatrix(shapes_lo, G, L);
    made->shapes_ho = MapMatrix(shapes_ho, G, H);
    made->lo.load(sizes[7], L, gains_lo);
    made->ho.load(sizes[8], H, gains_ho);
    made->limit = limits[0];
    made->lo_limit = limits[1];
    made->ho_limit = limits[2];
    made->min_flux = limits[3];
    made->image = Vector::Zero(P);
    made->scratch.resize(P);
    made->command = made->injected = Vector::Zero(G);
    made->ring = {Matrix::Zero(A, N), Matrix::Zero(A, N), Matrix::Zero(L, N), Matrix::Zero(L, N),
                  Matrix::Zero(H, N), Matrix::Zero(H, N), Matrix::Zero(G, N), Matrix::Zero(G, N),
                  Matrix::Zero(G, N), Matrix::Zero(G, N), Vector::Zero(N)};
    return made;
}

void reference_free(void* handle) { delete static_cast<Reference*>(handle); }

// Processes one frame; the command (G) is copied out. Returns 0 for a frame that is skipped.
int reference_step(void* handle, const int32_t* raw, double* command) {
    auto* self = static_cast<Reference*>(handle);
    const bool used = self->step(raw);
    std::copy(self->command.data(), self->command.data() + self->command.size(), command);
    return used;
}

// Times `calls` frames one by one [ns]. raw: some frames, one after the other, taken in turns.
void reference_time(void* handle, const int32_t* raw, int64_t frames, int64_t* times, int64_t calls) {
    auto* self = static_cast<Reference*>(handle);
    for (int64_t k = 0; k < calls; ++k) {
        const int32_t* const frame = raw + (k % frames) * self->image.size();
        const int64_t began = now_ns();
        self->step(frame);
        times[k] = now_ns() - began;
    }
}

}  // extern "C"
