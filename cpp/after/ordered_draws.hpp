// A draw from the posterior distribution of latent variables given ordered and continuous ones, of the model
// of `ModeProblem`, probit.
//
// For each cluster the end of a Markov chain with three kinds of steps that leave that distribution as it is:
// the effects of each unit given those of the cluster, and these given those of its units, by elliptical
// slice sampling (Murray, Adams & MacKay, 2010), which moves far where the categories say little; and all of
// them from their normal distribution given what is cut into categories, which is drawn given them first
// (Albert & Chib, 1993), which moves effects of units and clusters together.
#pragma once

#include <cstdint>

#include "after/ordered_modes.hpp"

namespace msem {

// What is wanted of units and of clusters, a column for each.
struct PosteriorDraw {
  Matrix unit, cluster;
};

// sweeps: of the chain. The draw is a function of the seed, the number of the group and the data.
PosteriorDraw posterior_draw(const ModeProblem& problem, std::uint64_t seed, std::uint32_t group, int sweeps);

}  // namespace msem
